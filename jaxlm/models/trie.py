"""All n-grams of a text in compressed rows, counted with NumPy."""

import dataclasses

import numpy as np

DENSE_ENTRIES = 2**22
"""A level with at most so many possible n-grams (or four times the tokens) is counted in a table, not by sorting."""
TABLE_SHARE = 2
"""All n-grams are counted in one pass where no more are possible than so many times the tokens: 16 bytes a token."""
BLOCK = 2**16
"""Tokens whose keys are made at once, and entries of a table that each block may go through: both stay in the cache."""


@dataclasses.dataclass(frozen=True)
class Level:
    """The distinct n-grams of one length, sorted by (parent, token), the parent being all tokens but the last.

    The children of parent p are the nodes start[p] to start[p + 1]. A context of EOS only is a node too, with
    count 0, so that every context that occurs has one.
    """

    token: np.ndarray
    """The last token of each node, int32."""
    start: np.ndarray
    """(parents + 1,) int32."""
    count: np.ndarray
    """Occurrences of each node, int64."""
    preceded: np.ndarray
    """Distinct tokens that stand before each node, which is the number of longer n-grams that end in it, int64.
    Empty at the longest length."""

    @property
    def parent(self) -> np.ndarray:
        """The parent of each node."""
        return np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))


def count(tokens_N: np.ndarray, age_N: np.ndarray, order: int, vocab_size: int, eos: int = 0) -> list[Level]:
    """Levels 1 to order of the n-grams that end at each position, with `eos` before the start of a line.

    age_N is how many tokens of its own line precede each position. Each level takes a few passes over the tokens, and
    a sort where its possible n-grams are too many for a table. Keys are (node of the parent) * V + token in 64 bits:
    they grow with the distinct n-grams, not with V ** order. Where V ** order is at most TABLE_SHARE times
    the tokens and eos is 0, all are counted in one pass.
    """
    V, N = vocab_size, len(tokens_N)
    if eos == 0 and V**order <= TABLE_SHARE * N:
        return _levels_of_table(_table(tokens_N, age_N, order, V), order, V)
    token_M = np.append(tokens_N, eos).astype(np.int64)  # the last one is the end of the all-EOS context
    inside_M = np.append(age_N > 0, False)
    node_M, parents = np.zeros(N + 1, np.int64), 1
    levels: list[Level] = []
    for _ in range(order):
        parent_M = np.where(inside_M, np.concatenate([node_M[-1:], node_M[:-1]]), node_M[-1])
        key_M = parent_M * V + token_M
        shorter_M = node_M
        key_U, node_M = _number(key_M, parents * V)
        count_U = np.bincount(node_M[:N], minlength=len(key_U))
        if levels:
            shorter_U = np.empty(len(key_U), np.int64)
            shorter_U[node_M] = shorter_M
            preceded = np.bincount(shorter_U[count_U > 0], minlength=len(levels[-1].token))
            levels[-1] = dataclasses.replace(levels[-1], preceded=preceded)
        start = np.concatenate([[0], np.cumsum(np.bincount(key_U // V, minlength=parents))])
        none = np.zeros(0, np.int64)
        levels.append(Level((key_U % V).astype(np.int32), start.astype(np.int32), count_U, none))
        parents = len(key_U)
    return levels


def _table(tokens_N: np.ndarray, age_N: np.ndarray, order: int, V: int) -> np.ndarray:
    """The count of every possible n-gram, int64, by its tokens read as digits."""
    count = np.zeros(V**order, np.int64)
    N = len(tokens_N)
    for first in range(0, N, BLOCK):
        last = min(first + BLOCK, N)
        key_B = tokens_N[first:last].astype(np.int64)
        for back in range(1, order):
            before_B = tokens_N[max(first - back, 0) : last - back]
            part_B = key_B[len(key_B) - len(before_B) :]  # the very first tokens have nothing so far before them
            part_B += before_B * (age_N[last - len(before_B) : last] >= back) * np.int64(V**back)
        if len(count) <= BLOCK:
            count += np.bincount(key_B, minlength=len(count))
        else:
            np.add.at(count, key_B, 1)
    return count


def _levels_of_table(count: np.ndarray, order: int, V: int) -> list[Level]:
    """The levels of a table: a shorter n-gram occurs as often as all longer ones that end in it."""
    key_U = np.flatnonzero(count)
    count_U = count[key_U]
    preceded_U = np.zeros_like(count_U)
    levels: list[Level] = []
    for length in range(order, 0, -1):
        shorter = V ** (length - 1)
        ending_U = key_U % shorter
        preceded = np.bincount(ending_U, minlength=shorter)
        shorter_U = np.flatnonzero(preceded)
        shorter_count_U = np.bincount(ending_U, weights=count_U, minlength=shorter).astype(np.int64)[shorter_U]
        if key_U[0]:  # the context before every line is a node
            key_U, count_U, preceded_U = (np.append(0, column_U) for column_U in (key_U, count_U, preceded_U))
        start = np.append(np.searchsorted(key_U // V, np.union1d(shorter_U, [0])), len(key_U))
        known = preceded_U if length < order else np.zeros(0, np.int64)
        levels.append(Level((key_U % V).astype(np.int32), start.astype(np.int32), count_U, known))
        key_U, count_U, preceded_U = shorter_U, shorter_count_U, preceded[shorter_U]
    return levels[::-1]


def _number(key_M: np.ndarray, keys: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct keys in order, and the place of each key among them."""
    if keys > max(DENSE_ENTRIES, 4 * len(key_M)):
        return np.unique(key_M, return_inverse=True)
    present = np.zeros(keys, bool)
    present[key_M] = True
    return np.flatnonzero(present), (np.cumsum(present) - 1)[key_M]
