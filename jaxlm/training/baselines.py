"""Losses of counts on dev, with which a model's own loss is compared: uniform, bigram and Kneser-Ney.

NumPy alone: nothing is compiled, so that they cost a run of seconds nothing that is noticed.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlm.data.corpus import Corpus
from jaxlm.models.counts import KneserNey

TRAIN_TOKENS = 2**20
"""Tokens of train that Kneser-Ney counts at most: the first ones."""
DEV_TOKENS = 2**17
"""Predictions of dev that are scored at most, evenly spread."""
SMALL_VOCABULARY = 512
"""Tokens up to which Kneser-Ney counts ORDER-grams; beyond, as with words, it counts WORD_ORDER-grams."""
ORDER, WORD_ORDER = 6, 3


def baselines(corpus: Corpus) -> dict[str, Any] | None:
    """Losses on dev in nats per token, of what train has counted; None without a dev split.

    "uniform": ln V. "bigram": (count(b, a) + 1) / (count(b) + V), as configs/names_bigram.py. "kneser_ney": n-grams
    with interpolated modified Kneser-Ney smoothing (models/counts.py), n being "kneser_ney_order", of the first
    "kneser_ney_tokens" tokens of train.
    """
    start, end = corpus.bounds["dev"]
    if start == end or not corpus.size("train"):
        return None
    V = corpus.tokenizer.vocab_size
    place_N = np.arange(start, end, max(1, -(-(end - start) // DEV_TOKENS)))
    order = ORDER if V <= SMALL_VOCABULARY else WORD_ORDER
    return {
        "uniform": math.log(V),
        "bigram": float(_bigram_nats(corpus, place_N, V).mean()),
        "kneser_ney": kneser_ney_loss(corpus, order, place_N, TRAIN_TOKENS),
        "kneser_ney_order": order,
        "kneser_ney_tokens": min(corpus.size("train"), TRAIN_TOKENS),
    }


def kneser_ney_loss(corpus: Corpus, order: int, place_N: np.ndarray, most: int | None = None) -> float:
    """The mean loss in nats of Kneser-Ney at some places, counted in the first `most` tokens of train; None: all."""
    V, (start, end) = corpus.tokenizer.vocab_size, corpus.bounds["train"]
    if most is not None:
        end = min(end, start + most)
    model = KneserNey(context=order - 1, vocab_size=V, eos=corpus.tokenizer.eos)
    params, _ = model.fit(corpus.tokens_N[start:end], corpus.age_N[start:end])
    ctx_NC = np.zeros((len(place_N), order - 1), np.int64)
    for back in range(1, order):
        ctx_NC[:, -back] = _back(corpus, place_N, back)
    return float(kneser_ney_nats(params, ctx_NC, corpus.tokens_N[place_N].astype(np.int64), V).mean())


def kneser_ney_nats(params: Mapping[str, Any], ctx_NC: np.ndarray, target_N: np.ndarray, V: int) -> np.ndarray:
    """-log p(target | context) of the parameters of a KneserNey of order C + 1, in float64: KneserNey.next_nats."""
    C = ctx_NC.shape[1]
    key_U = {length: _keys(params, length, V) for length in range(1, C + 2)}

    def child(level: int, parent_N: np.ndarray, token_N: np.ndarray) -> np.ndarray:
        """The node of parent and token, -1 if there is none."""
        wanted_N = np.where(parent_N >= 0, parent_N * V + token_N, -1)
        found_N = np.minimum(np.searchsorted(key_U[level], wanted_N), len(key_U[level]) - 1)
        return np.where(key_U[level][found_N] == wanted_N, found_N, -1)

    p_N = np.full(len(target_N), 1 / V)
    for length in range(1, C + 2):
        node_N = np.zeros(len(target_N), np.int64)
        for level in range(1, length):
            node_N = child(level, node_N, ctx_NC[:, C - length + level])
        own_N = _value(params[f"p_{length}"], child(length, node_N, target_N), 0.0)
        p_N = own_N + _value(params[f"backoff_{length}"], node_N, 1.0) * p_N
    return np.asarray(-np.log(p_N))


def _bigram_nats(corpus: Corpus, place_N: np.ndarray, V: int) -> np.ndarray:
    """-log((count(b, a) + 1) / (count(b) + V)) of the tokens a at some places, b the token before or EOS."""
    train_N = np.arange(*corpus.bounds["train"])
    before_N = _back(corpus, train_N, 1)
    key_U, count_U = np.unique(before_N * V + corpus.tokens_N[train_N], return_counts=True)
    total_V = np.bincount(before_N, minlength=V)
    before_N = _back(corpus, place_N, 1)
    wanted_N = before_N * V + corpus.tokens_N[place_N]
    found_N = np.minimum(np.searchsorted(key_U, wanted_N), len(key_U) - 1)
    count_N = np.where(key_U[found_N] == wanted_N, count_U[found_N], 0)
    return np.asarray(np.log(total_V[before_N] + V) - np.log(count_N + 1))


def _back(corpus: Corpus, place_N: np.ndarray, back: int) -> np.ndarray:
    """The token so many places before each place, EOS before the start of its line, int64."""
    token_N = corpus.tokens_N[np.maximum(place_N - back, 0)].astype(np.int64)
    return np.where(corpus.age_N[place_N] >= back, token_N, corpus.tokenizer.eos)


def _keys(params: Mapping[str, Any], length: int, V: int) -> np.ndarray:
    """Parent * V + token of each node of a level, which are in order."""
    start_P = np.asarray(params[f"start_{length}"], np.int64)
    parent_U = np.repeat(np.arange(len(start_P) - 1), np.diff(start_P))
    return np.asarray(parent_U * V + np.asarray(params[f"token_{length}"], np.int64))


def _value(value_U: Any, node_N: np.ndarray, absent: float) -> np.ndarray:
    """The value of each node, `absent` where it is -1."""
    return np.where(node_N >= 0, np.asarray(value_U, np.float64)[node_N], absent)
