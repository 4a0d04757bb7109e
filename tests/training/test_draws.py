"""Rows that are drawn ahead are those that are drawn when they are wanted."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jaxlm.training import draws
from jaxlm.training.draws import Draws


class Batcher:
    """Steps' numbers as rows, and which steps were drawn at once."""

    batch_size = 4

    def __init__(self) -> None:
        self.drawn: list[range] = []

    def draw(self, seed: int, steps: range) -> np.ndarray:
        """row_KB."""
        self.drawn.append(steps)
        return np.repeat(np.asarray(steps, np.int32)[:, None] + seed, self.batch_size, axis=1)


def take(rows: Draws, step: int, K: int) -> list[int]:
    row_KB = rows.take(step, K)
    assert row_KB.shape == (K, 4) and (row_KB == row_KB[:, :1]).all()
    return row_KB[:, 0].tolist()


def test_rows_are_drawn_ahead_no_further_than_the_last_step(monkeypatch):
    monkeypatch.setattr(draws, "ROWS_AHEAD", 4 * 6)
    batcher: Any = Batcher()
    rows = Draws(batcher, 100, last_step=20)
    assert take(rows, 3, 2) == [103, 104]
    rows.draw_ahead()
    assert batcher.drawn == [range(3, 5), range(5, 11)]
    assert take(rows, 5, 3) + take(rows, 8, 3) == list(range(105, 111))
    assert len(batcher.drawn) == 2
    assert [take(rows, step, 2) for step in (4, 10, 11)] == [[104, 105], [110, 111], [111, 112]]
    near = Draws(batcher, 0, last_step=9)
    take(near, 4, 1)
    near.draw_ahead()
    assert batcher.drawn[-1] == range(5, 9)


@pytest.mark.parametrize("batch_size", [0, 2**30])
def test_batches_of_all_rows_and_huge_ones_are_no_trouble(batch_size):
    batcher: Any = SimpleNamespace(batch_size=batch_size, draw=lambda seed, steps: np.empty((len(steps), 0)))
    rows = Draws(batcher, 0, last_step=8)
    rows.draw_ahead()
    assert rows.take(2, 3).shape == (3, 0)
