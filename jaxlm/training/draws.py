"""The rows of the steps to come."""

import numpy as np

from jaxlm.data.batches import Batcher

ROWS_AHEAD = 2**21
"""Rows drawn at once at the start (25 ms, 8 MB): they last a small model until the start is over."""


class Draws:
    """Each chunk's rows, those of a run's first ones drawn beforehand: while the start goes on behind the first steps,
    other threads hold the interpreter, and each of the hundred array operations of a draw would wait for them.
    """

    def __init__(self, batcher: Batcher, seed: int, last_step: int):
        self._batcher, self._seed, self._last_step = batcher, seed, last_step
        self._first, self._next, self._row_KB = 0, 0, np.empty((0, 0), np.int32)

    def take(self, step: int, K: int) -> np.ndarray:
        """row_KB of the K steps from `step` on."""
        start, self._next = step - self._first, step + K
        if start >= 0 and start + K <= len(self._row_KB):
            return self._row_KB[start : start + K]
        return self._batcher.draw(self._seed, range(step, step + K))

    def draw_ahead(self) -> None:
        """Draw the rows of steps after those that have been taken."""
        steps = ROWS_AHEAD // max(1, self._batcher.batch_size)
        self._first = self._next
        self._row_KB = self._batcher.draw(self._seed, range(self._next, min(self._next + steps, self._last_step)))
