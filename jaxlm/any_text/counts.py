"""The counts that a trained model is mixed with, and has to beat: Kneser-Ney of the order that predicts dev best."""

from typing import NamedTuple

import numpy as np

from jaxlm.data.corpus import Corpus
from jaxlm.training.baselines import kneser_ney_loss

ORDERS = (2, 3, 4, 5, 6, 7, 8, 10, 12)
"""Orders that are tried, until one is worse than the one before it."""
PLACES = 2**17
"""Predictions of dev by which orders are compared, at most, evenly spread."""
COMPARED_TOKENS = 2**22
"""Tokens of train that are counted for the comparison, at most: the first ones. Counting takes 2 seconds a million."""
TRAIN_TOKENS, LARGE_ORDER = 2**24, 6
"""Tokens of train beyond which no order above LARGE_ORDER is tried: their n-grams would take gigabytes."""


class Counts(NamedTuple):
    """Kneser-Ney of the best order."""

    order: int
    """Tokens of the longest n-gram."""
    dev: float
    """The dev loss in nats per token, counted in COMPARED_TOKENS of train; infinite without a dev split."""


def best_counts(corpus: Corpus) -> Counts:
    """Count n-grams of rising length until dev is predicted worse; returns the best order with its loss.

    A text without a dev split gets n-grams of LARGE_ORDER tokens.
    """
    start, end = corpus.bounds["dev"]
    best = Counts(LARGE_ORDER, float("inf"))
    if start == end:
        return best
    place_N = np.arange(start, end, max(1, -(-(end - start) // PLACES)))
    for order in ORDERS:
        if order > LARGE_ORDER and corpus.size("train") > TRAIN_TOKENS:
            break
        loss = kneser_ney_loss(corpus, order, place_N, COMPARED_TOKENS)
        if loss >= best.dev:
            break
        best = Counts(order, loss)
    return best
