"""Batches as pure functions of (seed, step): rows drawn on the host, their tokens gathered inside jit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import RunConfig
from jaxlm.data.corpus import Corpus
from jaxlm.data.rows import Batch, Tokens, row_table, sequence_length, sequences_at, windows_at
from jaxlm.ops import prng

__all__ = [
    "EVAL_TOKENS",
    "Batch",
    "Batcher",
    "Tokens",
    "prepare",
    "row_table",
    "sequence_length",
    "sequences_at",
    "windows_at",
]

EVAL_TOKENS = 8192
"""Predictions in one block of an evaluation."""


@dataclasses.dataclass(frozen=True)
class Batcher:
    """How one run's batches are drawn. Hashable; the arrays it reads come as the argument `tokens`."""

    example: str
    kind: str
    width: int
    """Context tokens of a window, or predictions in a sequence."""
    batch_size: int
    train: tuple[int, int]
    """The range of positions that belong to train."""
    train_rows: tuple[int, int]
    """The range of rows that belong to train."""
    full: bool

    @property
    def examples(self) -> int:
        """Rows that train has to offer."""
        start, end = self._offered
        return end - start

    @property
    def targets_per_row(self) -> int:
        """Predictions in a row of a batch, padding counted."""
        return 1 if self.example == "window" else self.width

    @property
    def _offered(self) -> tuple[int, int]:
        return self.train if self.example == "window" else self.train_rows

    @property
    def _is_cut(self) -> bool:
        """Whether sequences are cut out of a stream anywhere."""
        return self.example == "sequence" and self.kind == "stream"

    @property
    def _cut_length(self) -> int:
        """Predictions in a sequence that is cut out: a stream may be shorter than a row."""
        return min(self.width, self.train[1] - self.train[0])

    def draw(self, seed: int, steps: range) -> np.ndarray:
        """What `at` takes for each of some steps, row_KB in int32: rows drawn with replacement by fold_in(key, step).

        No columns where every batch is all of train.
        """
        if self.full:
            return np.empty((len(steps), 0), np.int32)
        low, high = (self.train[0], self.train[1] - self._cut_length + 1) if self._is_cut else self._offered
        return prng.integers(seed, prng.BATCHES, np.asarray(steps), self.batch_size, low, high)

    def at(self, tokens: Tokens, row_B: jax.Array) -> Batch:
        """The batch of a step's rows: positions for windows and sequences of a stream, numbers of rows else.

        Most dialogues are longer than a row: all predictions of a row count here, those of its overlap too.
        """
        if self.full:
            every_B = jnp.arange(*self._offered)
            return windows_at(tokens, every_B, self.width) if self.example == "window" else self.rows(tokens, every_B)
        if self.example == "window":
            return windows_at(tokens, row_B, self.width)
        if self._is_cut:
            length_B = jnp.full_like(row_B, self._cut_length)
            return sequences_at(tokens, row_B, length_B, jnp.zeros_like(row_B), self.width)
        if self.kind == "dialogues":
            return sequences_at(
                tokens, tokens.first_R[row_B], tokens.length_R[row_B], jnp.zeros_like(row_B), self.width
            )
        return self.rows(tokens, row_B)

    def rows(self, tokens: Tokens, row_B: jax.Array) -> Batch:
        """The batch of given rows: positions for windows, numbers of sequences else. A row of -1 is padding."""
        present_B = row_B >= 0
        row_B = jnp.maximum(row_B, 0)
        if self.example == "window":
            return windows_at(tokens, row_B, self.width)._replace(weight=present_B.astype(jnp.float32))
        batch = sequences_at(tokens, tokens.first_R[row_B], tokens.length_R[row_B], tokens.skip_R[row_B], self.width)
        assert batch.weight is not None
        return batch._replace(weight=batch.weight * present_B[:, None])


def prepare(
    config: RunConfig, corpus: Corpus, context: int | None, max_length: int | None = None
) -> tuple[Batcher, Tokens, dict[str, np.ndarray]]:
    """A run's batcher, its arrays (on the host still), and the rows of each split for evaluation.

    `context` is what the model sees, None where that is unlimited; `max_length` is what it takes at once.
    """
    width = min(sequence_length(config.data, corpus), max_length or config.data.max_length)
    columns, row_ranges = row_table(corpus, width)
    full = config.batch_size == "full"
    window = config.data.example == "window"
    batcher = Batcher(
        example=config.data.example,
        kind=config.data.kind,
        width=context if window and context is not None else width,
        batch_size=0 if config.batch_size == "full" else config.batch_size,
        train=corpus.bounds["train"],
        train_rows=row_ranges["train"],
        full=full,
    )
    if full:
        batcher = dataclasses.replace(batcher, batch_size=batcher.examples)
    ranges = corpus.bounds if window else row_ranges
    rows = {split: np.arange(*ranges[split], dtype=np.int32) for split in ranges}
    host = Tokens(
        *(corpus.tokens_N, corpus.age_N, columns["first"], columns["length"], columns["skip"])  # type: ignore[arg-type]
    )
    return batcher, host, rows
