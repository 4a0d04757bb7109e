"""word2vec on few words: how much is learned at once, and the loss of words that stand next to each other by chance.

The updates of word2vec are meant one pair after another: each step is bounded, its gradient being (1 - s(x . y)) y, and
the next one sees its result. Here the N words of an update are learned at once, from the same vectors, and their
gradients are added up. A row that n of the pairs touch then makes a step of n * rate. Near its optimum its error is
multiplied by 1 - n * rate * E[s' |y|^2], s' <= 1/4: beyond 2 it grows with every update. In a large vocabulary n is
small for all rows but a few. Where the whole vocabulary has fewer words than an update, n is large for every row, on
both sides, and the loss explodes. So an update takes at most as many words as the vocabulary effectively has: each row
then stands for a word once on average.

The same holds between workers, which start a step from the same vectors: where each of them has moved a row to its
optimum, their changes add up to twice the way, or more. So on few words they run one after another.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from jaxlm.config import Word2vecConfig
from jaxlm.word2vec.reader import keep_probabilities

MOST_REPEATS = 32
"""Words of a worker's part of a step, for each word of the vocabulary, up to which workers run at the same time."""


def effective_words(counts: Sequence[int], subsample: float) -> float:
    """Number of equally frequent words that would repeat as often: 1 / sum p_w^2, p_w the share of a word that is kept.

    p is that after subsampling.
    """
    count_V = np.array(counts, np.float64)
    kept_V = count_V * keep_probabilities(count_V, subsample)
    return float(kept_V.sum() ** 2 / np.square(kept_V).sum())


def bounded(config: Word2vecConfig, counts: Sequence[int]) -> Word2vecConfig:
    """Return the settings with span and blocks lowered until an update has at most `effective_words` words."""
    most = max(1, int(effective_words(counts, config.subsample)))
    if config.update_words <= most:
        return config
    span = min(config.span, most)
    return dataclasses.replace(config, span=span, blocks=min(config.blocks, most // span))


def one_by_one(config: Word2vecConfig, vocab_size: int, step_words: int) -> bool:
    """True if the workers of a step have to run one after another, because each meets all words many times."""
    return step_words > MOST_REPEATS * vocab_size * config.workers


def unigram_loss(config: Word2vecConfig, counts: Sequence[int]) -> float:
    """Mean loss in nats per pair of the best vectors if words stand next to each other by chance.

    Negative sampling: sum_w p_w log((p_w + k q_w) / p_w) + k q_w log((p_w + k q_w) / (k q_w)), p the shares of the
    words that are kept, q those of the k negatives. Hierarchical softmax: the entropy of p.
    """
    count_V = np.array(counts, np.float64)
    p_V = count_V * keep_probabilities(count_V, config.subsample)
    p_V = p_V / p_V.sum()
    if config.output == "hierarchical-softmax":
        return float(-(p_V * np.log(p_V)).sum())
    noise_V = count_V**config.exponent
    noise_V = config.negatives * noise_V / noise_V.sum()
    both_V = np.log(p_V + noise_V)
    return float((p_V * (both_V - np.log(p_V)) + noise_V * (both_V - np.log(noise_V))).sum())


def initial_loss(config: Word2vecConfig, counts: Sequence[int]) -> float:
    """Mean loss in nats per pair of output vectors that are 0: ln 2 for the word and for each of its negatives.

    Of hierarchical softmax it is a bound: a path has at most a bit more than the entropy, on average (Huffman 1952).
    """
    if config.output == "hierarchical-softmax":
        return unigram_loss(config, counts) + math.log(2)
    return (1 + config.negatives) * math.log(2)
