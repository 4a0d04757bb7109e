"""How often each token of train follows each other one."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxlm.data.corpus import Corpus

KEPT_TOKENS = 1000
"""Tokens whose bigrams are counted at most: the most frequent ones."""


class BigramCounts(NamedTuple):
    """How often each token follows each other one, and the tokens as people read them."""

    count_VV: np.ndarray
    """count[before, after]; EOS stands before a line."""
    spelled: list[str]


def count_bigrams(corpus: Corpus) -> BigramCounts:
    """The bigrams of train, of its KEPT_TOKENS most frequent tokens at most."""
    V = corpus.tokenizer.vocab_size
    after_N = corpus.tokens("train").astype(np.int64)
    before_N = np.where(corpus.age_N[: len(after_N)] > 0, np.roll(after_N, 1), corpus.tokenizer.eos)
    kept = np.arange(V)
    if V > KEPT_TOKENS:
        kept = np.sort(np.argsort(-np.bincount(after_N, minlength=V), kind="stable")[:KEPT_TOKENS])
        place_V = np.full(V, -1)
        place_V[kept] = np.arange(KEPT_TOKENS)
        before_N, after_N = place_V[before_N], place_V[after_N]
        both_N = (before_N >= 0) & (after_N >= 0)
        before_N, after_N, V = before_N[both_N], after_N[both_N], KEPT_TOKENS
    count_VV = np.bincount(before_N * V + after_N, minlength=V * V).reshape(V, V)
    return BigramCounts(count_VV, [corpus.tokenizer.spell(token) for token in kept.tolist()])


def save_bigrams(counts: BigramCounts, path: Path) -> None:
    """Write pairs.npz."""
    np.savez(path, count=counts.count_VV, spelled=np.array(counts.spelled))


def load_bigrams(path: Path) -> BigramCounts:
    """Read pairs.npz."""
    with path.open("rb") as file, np.load(file) as arrays:
        return BigramCounts(arrays["count"], arrays["spelled"].tolist())
