"""Batches of word2vec as a function of (seed, step, worker): sampled words, windows, negatives and rows touched."""

import dataclasses
from functools import cached_property
from typing import NamedTuple

import numpy as np

from jaxlm.config import Word2vecConfig
from jaxlm.word2vec.huffman import huffman_paths

EVALUATION = 2**63
"""Offset of the draws of an evaluation, so that they differ from those of training."""


class WorkerBatch(NamedTuple):
    """The training data of one worker in one step: N consecutive words, the first `updates` updates of which are real.

    Inputs and outputs are indices into the rows that the worker touches: row u of its own tables is row row_U[u] of
    the model's. The number of rows is padded to a power of two with rows that do not exist.
    """

    input_row_U: np.ndarray
    """Rows of the model's input table that the worker touches."""
    output_row_U: np.ndarray
    """Rows of the model's output table that the worker touches."""
    input_N: np.ndarray
    """Input row of each word, with `window` words of padding at both ends."""
    output_N: np.ndarray
    """Negative sampling: output row of each word, padded as input_N. Empty for hierarchical softmax."""
    left_N: np.ndarray
    """Number of words before each word that are in its window, from 0 to `window`."""
    right_N: np.ndarray
    """Number of words after each word that are in its window, from 0 to `window`."""
    negative_SM: np.ndarray
    """Negative sampling: output rows of the M words drawn for each of S updates."""
    node_UL: np.ndarray
    """Hierarchical softmax: output rows on the path of each input row, padded with row 0."""
    sign_UL: np.ndarray
    """Hierarchical softmax: sign of each node on the path (see huffman_paths), 0 for padding."""
    updates: np.ndarray
    """Number of updates that are not padding, an int32 scalar."""


class BatchCounts(NamedTuple):
    """Numbers of words and predictions in a batch."""

    words: int
    """Words read, before subsampling."""
    pairs: int
    """Predictions: one for each word and neighbour (skip-gram), or one for each word with neighbours (cbow)."""


@dataclasses.dataclass(frozen=True)
class Reader:
    """Divides a split into steps of `step_words` ids and their workers, and samples each worker's batch.

    A window covers the words kept by subsampling, within the sentence and the worker's part of the step.
    """

    config: Word2vecConfig
    """The settings."""
    id_N: np.ndarray
    """Ids of the split: word i as i + 1, and 0 at the end of a sentence."""
    counts: tuple[int, ...]
    """Count of each word of the vocabulary."""
    step_words: int
    """Ids in a step."""
    seed: int
    """Seed of subsampling, window widths and negatives."""
    offset: int = 0
    """Added to the number of each draw; EVALUATION separates evaluation from training."""

    @cached_property
    def _keep(self) -> np.ndarray:
        """Probability of keeping each id; -1 for the end of a sentence (the last place, by index -1)."""
        count_V = np.array(self.counts, np.float64)
        return np.append(-1.0, keep_probabilities(count_V, self.config.subsample))

    @cached_property
    def _cumulative(self) -> np.ndarray:
        share_V = np.array(self.counts, np.float64) ** self.config.exponent
        return np.asarray(np.cumsum(share_V) / share_V.sum())

    @cached_property
    def _paths(self) -> tuple[np.ndarray, np.ndarray]:
        return huffman_paths([int(count) for count in self.counts])

    @property
    def steps(self) -> int:
        """Number of steps that read the split once."""
        return max(1, -(-len(self.id_N) // self.step_words))

    def worker_batch(self, step: int, worker: int) -> tuple[WorkerBatch, BatchCounts]:
        """Sample the batch of a worker in a step; steps count from 0 through all epochs."""
        config, words = self.config, self.step_words
        rng = np.random.Generator(np.random.Philox(key=[self.seed, self.offset + step * config.workers + worker]))
        first = step % self.steps * words
        start, end = (min(first + words * number // config.workers, len(self.id_N)) for number in (worker, worker + 1))
        id_N = np.asarray(self.id_N[start:end], np.int64)
        kept_N = rng.random(len(id_N)) < self._keep[id_N]
        sentence_N = np.cumsum(id_N == 0)[kept_N]
        word_N = id_N[kept_N] - 1
        room = -(-words // (config.workers * config.update_words)) * config.update_words
        left_N, right_N = (np.zeros(room, np.int32) for _ in range(2))
        left_N[: len(word_N)], right_N[: len(word_N)] = window_extents(sentence_N, self._widths(rng, len(word_N)))
        batch = self._rows(rng, word_N, left_N, right_N)
        pairs_N = left_N + right_N
        pairs = pairs_N.sum() if config.predict == "skip-gram" else np.count_nonzero(pairs_N)
        return batch, BatchCounts(int((id_N > 0).sum()), int(pairs))

    def _widths(self, rng: np.random.Generator, size: int) -> np.ndarray:
        if self.config.shrink:
            return rng.integers(1, self.config.window + 1, size)
        return np.full(size, self.config.window)

    def _rows(
        self, rng: np.random.Generator, word_N: np.ndarray, left_N: np.ndarray, right_N: np.ndarray
    ) -> WorkerBatch:
        config, V, size = self.config, len(self.counts), len(left_N)
        updates = -(-len(word_N) // config.update_words)
        input_row_U, input_of_V = _compact(word_N, V)
        input_N = _padded(input_of_V[word_N], size, config.window)
        if config.output == "hierarchical-softmax":
            node_VL, sign_VL = self._paths
            node_UL = node_VL[np.minimum(input_row_U, V - 1)]
            output_row_U, output_of_V = _compact(node_UL[node_UL >= 0], V - 1)
            return WorkerBatch(
                input_row_U,
                output_row_U,
                input_N,
                np.zeros(0, np.int32),
                left_N,
                right_N,
                np.zeros((0, 0), np.int32),
                np.where(node_UL >= 0, output_of_V[node_UL], 0).astype(np.int32),
                sign_VL[np.minimum(input_row_U, V - 1)],
                np.array(updates, np.int32),
            )
        drawn_SM = rng.random((size // config.update_words, config.shared_negatives))
        negative_SM = np.minimum(np.searchsorted(self._cumulative, drawn_SM, side="right"), V - 1)
        output_row_U, output_of_V = _compact(np.concatenate([word_N, negative_SM[:updates].reshape(-1)]), V)
        return WorkerBatch(
            input_row_U,
            output_row_U,
            input_N,
            _padded(output_of_V[word_N], size, config.window),
            left_N,
            right_N,
            output_of_V[negative_SM],
            np.zeros((0, 0), np.int32),
            np.zeros((0, 0), np.int8),
            np.array(updates, np.int32),
        )


def keep_probabilities(count_V: np.ndarray, subsample: float) -> np.ndarray:
    """Probability of keeping each word: min(1, sqrt(t / f) + t / f), with t = `subsample` and f its share of all words.

    It is 1 for t = 0. This is the formula of word2vec's program; Mikolov et al. 2013b, equation 5, has sqrt(t / f).
    """
    if not subsample:
        return np.ones(len(count_V))
    ratio_V = subsample / (count_V / count_V.sum())
    return np.minimum(1.0, np.sqrt(ratio_V) + ratio_V)


def window_extents(sentence_N: np.ndarray, width_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of words before and after each word in its window, which ends with its sentence: (left_N, right_N)."""
    place_N = np.arange(len(sentence_N))
    change_N = sentence_N[1:] != sentence_N[:-1]
    first_N, last_N = np.concatenate([[True], change_N]), np.concatenate([change_N, [True]])
    if not len(sentence_N):
        return place_N, place_N
    start_N = np.maximum.accumulate(np.where(first_N, place_N, 0))
    end_N = np.minimum.accumulate(np.where(last_N, place_N, len(place_N))[::-1])[::-1]
    return np.minimum(width_N, place_N - start_N), np.minimum(width_N, end_N - place_N)


def _compact(index_N: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the distinct indices, sorted and padded with `rows` to a power of two, and each index's position there."""
    touched_V = np.zeros(rows, bool)
    touched_V[index_N] = True
    row_U = np.flatnonzero(touched_V)
    place_V = np.zeros(rows, np.int32)
    place_V[row_U] = np.arange(len(row_U))
    padded_U = np.full(1 << max(len(row_U) - 1, 0).bit_length(), rows, np.int32)
    padded_U[: len(row_U)] = row_U
    return padded_U, place_V


def _padded(index_N: np.ndarray, size: int, window: int) -> np.ndarray:
    padded_N = np.zeros(size + 2 * window, np.int32)
    padded_N[window : window + len(index_N)] = index_N
    return padded_N
