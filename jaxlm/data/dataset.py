"""A corpus on the device, and a run's batches of it as a function of (seed, step)."""

import copy
import dataclasses
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import RunConfig
from jaxlm.config.check import MOST
from jaxlm.data import order
from jaxlm.data.corpus import Corpus
from jaxlm.data.rows import Batch, Tokens, row_table, sequence_length, sequences_at, windows_at
from jaxlm.devices.placing import place
from jaxlm.errors import UserError

ShardRows = Callable[[Any, int], Any]
"""Inside jit: a tree of arrays, and the axis that counts rows, to the same tree with that axis laid over devices."""


@dataclasses.dataclass(frozen=True)
class RowShape:
    """How a row of a batch is gathered. Hashable, so that data sets of one shape share their compiled programs."""

    kind: Literal["window", "stretch", "dialogue", "line"]
    """The meaning of a row number of training. window, stretch: a position, the target's or the first prediction's.
    line, dialogue: a row of the table; a dialogue's overlap counts in training too, since most have one."""
    width: int
    """Context tokens of a window, predictions of the others."""
    stretch: int
    """stretch: predictions that count; a stream may be shorter than the width."""


class Dataset:
    """Rows of a corpus that lies on the device: batches as a function of (seed, step).

    `context` is what the model sees, None where that is unlimited; `max_length` is what it takes at once, None for any.
    A full batch is padded by rows of weight 0 to a multiple of `row_multiple`. `shard_rows` lays a batch over devices;
    `replicated` is where the corpus goes, once. `rows` are train's sequences, as columns of `row_table`, in place of
    those that cover the corpus. Raises UserError for a corpus of more positions than int32 counts.
    """

    def __init__(
        self,
        config: RunConfig,
        corpus: Corpus,
        *,
        context: int | None,
        max_length: int | None,
        row_multiple: int = 1,
        shard_rows: ShardRows | None = None,
        replicated: jax.sharding.Sharding | None = None,
        rows: dict[str, np.ndarray] | None = None,
    ):
        check_positions(len(corpus.tokens_N))
        data, window = config.data, config.data.example == "window"
        width = min(sequence_length(data, corpus), max_length or data.max_length)
        columns, ranges = [np.zeros(0, np.int32)] * 3, corpus.bounds
        if window:
            width = context if context is not None else width
        else:
            if rows is None:
                rows, ranges = row_table(corpus, width, step=max(1, width // 2) if data.overlap else width)
            else:
                ranges = {"train": (0, len(rows["first"]))}
            columns = [rows[name] for name in ("first", "length", "skip")]
        self._seed, self._order, self._shard_rows = config.seed, data.order, shard_rows
        self._start, end = corpus.bounds["train"]
        self._train = end - self._start
        is_cut = not window and data.kind == "stream"
        kind: Any = "window" if window else {"stream": "stretch", "dialogues": "dialogue", "lines": "line"}[data.kind]
        self._shape = RowShape(kind, width, min(width, self._train))
        self.rows: dict[str, np.ndarray] = {split: np.arange(*ranges[split], dtype=np.int64) for split in ranges}
        """Numbers of each split's rows, int64, for `batch`: positions of windows, rows of the table of sequences."""
        self.full: bool = config.batch_size == "full"
        """True if every batch is all of train."""
        self.examples: int = len(self.rows["train"])
        """Rows that train offers in an epoch; of a stream's sequences as many as fit into it side by side."""
        if is_cut and not self.full:
            self.examples = max(1, self._train // self._shape.stretch)
        self.batch_size: int = -(-self.examples // row_multiple) * row_multiple
        """Rows in a batch, padding counted."""
        if config.batch_size != "full":
            self.batch_size = config.batch_size
        self.rows_per_step: int = self.examples if self.full else self.batch_size
        """Rows that a step trains on, without padding: epochs = steps * rows_per_step / examples."""
        self.targets_per_row: int = 1 if window else width
        """Predictions in a row of a batch, padding counted."""
        host: Any = (corpus.tokens_N, corpus.age_N, *columns, np.int32(corpus.tokenizer.bos))
        self._tokens = place(Tokens(*host), replicated)

    def batches(self, step: int, K: int) -> Batch:
        """The batches of K steps from `step` on, on the device, with leading axes (K, B); (1, B) where full.

        A full batch is the same arrays at every call: they must not be donated.
        """
        if self.full:
            return self._full_batch
        row_KB = self.row_numbers(step, K).astype(np.int32)
        return _batches(self._shape, self._shard_rows, self._tokens, row_KB)

    def with_seed(self, seed: int) -> "Dataset":
        """The same rows in the order of another seed. The corpus on the device is shared."""
        other = copy.copy(self)
        other._seed = seed
        return other

    def gather(self, row_XB: jax.Array) -> Batch:
        """The batches of some of train's row numbers, int32 on the device, laid out over devices as they are."""
        return _batches(self._shape, None, self._tokens, row_XB)

    def batch(self, row_B: np.ndarray) -> Batch:
        """One batch of given rows, on the device; a prediction that several rows have counts in one. -1: weight 0."""
        return _batch(self._shape, self._shard_rows, self._tokens, np.asarray(row_B, np.int32))

    def row_numbers(self, step: int, K: int) -> np.ndarray:
        """The rows of K steps from `step` on: row_KB, int64: positions of windows and stretches, or rows of the table.

        Shuffled: position step * B + b of the run is one of epoch // examples, which has each row once. Of a stream an
        epoch is cut into stretches side by side, whose offset is drawn for each epoch; what does not fit at the ends
        is moved inside. With replacement: rows are independent, and stretches begin anywhere.
        """
        if self.full:
            return np.append(self.rows["train"], np.full(self.batch_size - self.examples, -1))[None]
        B, n = self.batch_size, self.examples
        is_cut = self._shape.kind == "stretch"
        if self._order == "replacement":
            choices = self._train - self._shape.stretch + 1 if is_cut else n
            return self._first + order.with_replacement(self._seed, step, K, B, choices)
        row_N = order.shuffled(self._seed, step * B, K * B, n)
        if is_cut:
            row_N = self._stretches(row_N, np.arange(step * B, (step + K) * B) // n)
        return self._first + row_N.reshape(K, B)

    @property
    def _first(self) -> int:
        """The number of train's first row."""
        return self._start if self._shape.kind == "stretch" else int(self.rows["train"][0])

    def _stretches(self, nth_N: np.ndarray, epoch_N: np.ndarray) -> np.ndarray:
        """The first positions, counted in train, of the nth stretches of epochs (which do not decrease)."""
        width, slack = self._shape.stretch, self._train - self.examples * self._shape.stretch
        epochs_E = np.arange(epoch_N[0], epoch_N[-1] + 1)
        offset_E = order.offsets(self._seed, epochs_E, width) + (slack - width + 1) // 2
        return np.clip(nth_N * width + offset_E[epoch_N - epoch_N[0]], 0, self._train - width)

    @cached_property
    def _full_batch(self) -> Batch:
        row_B = self.row_numbers(0, 1)[0].astype(np.int32)
        batch = _full(self._shape, self._shard_rows, self._tokens, row_B[None])
        is_padded = self.batch_size > self.examples
        return batch if is_padded or self._shape.kind != "window" else batch._replace(weight=None)


def check_positions(count: int) -> None:
    """Raise UserError where a corpus has more positions than the device's int32 can count."""
    if count > MOST:
        raise UserError(
            f"data.path wants a text of at most {MOST:,} tokens, whose positions the device counts in int32, "
            f"got {count:,}: split the file, or take tokens of more characters (data.tokens)"
        )


@partial(jax.jit, static_argnums=(0, 1))
def _batches(shape: RowShape, shard_rows: ShardRows | None, tokens: Tokens, row_KB: jax.Array) -> Batch:
    batch = jax.vmap(partial(_trained, shape, tokens))(row_KB)
    return shard_rows(batch, 1) if shard_rows else batch


@partial(jax.jit, static_argnums=(0, 1))
def _full(shape: RowShape, shard_rows: ShardRows | None, tokens: Tokens, row_1B: jax.Array) -> Batch:
    batch = jax.vmap(partial(_counted_once, shape, tokens))(row_1B)
    return shard_rows(batch, 1) if shard_rows else batch


@partial(jax.jit, static_argnums=(0, 1))
def _batch(shape: RowShape, shard_rows: ShardRows | None, tokens: Tokens, row_B: jax.Array) -> Batch:
    batch = _counted_once(shape, tokens, row_B)
    return shard_rows(batch, 0) if shard_rows else batch


def _trained(shape: RowShape, tokens: Tokens, row_B: jax.Array) -> Batch:
    """The batch that training takes of some row numbers."""
    if shape.kind == "window":
        return windows_at(tokens, row_B, shape.width)
    none_B = jnp.zeros_like(row_B)
    if shape.kind == "stretch":
        return sequences_at(tokens, row_B, jnp.full_like(row_B, shape.stretch), none_B, shape.width)
    skip_B = none_B if shape.kind == "dialogue" else tokens.skip_R[row_B]
    return sequences_at(tokens, tokens.first_R[row_B], tokens.length_R[row_B], skip_B, shape.width)


def _counted_once(shape: RowShape, tokens: Tokens, row_B: jax.Array) -> Batch:
    """The batch of some rows in which no prediction counts that another row counts; a row of -1 is padding."""
    present_B = row_B >= 0
    row_B = jnp.maximum(row_B, 0)
    if shape.kind == "window":
        return windows_at(tokens, row_B, shape.width)._replace(weight=present_B.astype(jnp.float32))
    batch = sequences_at(tokens, tokens.first_R[row_B], tokens.length_R[row_B], tokens.skip_R[row_B], shape.width)
    assert batch.weight is not None
    return batch._replace(weight=batch.weight * present_B[:, None])
