"""Batches out of token shards on disk as a function of (seed, step), read ahead of the device by a thread."""

import mmap
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import RunConfig
from jaxlm.data import order
from jaxlm.data.dataset import ShardRows
from jaxlm.data.rows import Batch
from jaxlm.data.shards import SPLITS, Shards
from jaxlm.errors import UserError

OPEN_SHARDS = 256
"""Shards that are mapped at once at most: each map holds a file open."""


class OwnRows(Protocol):
    """Interface of the share that one of several processes has in a batch."""

    def own(self, size: int) -> np.ndarray:
        """Positions of its rows in a batch of so many, in order."""
        ...

    def place(self, tree: Any, axis: int, size: int) -> Any:
        """Arrays of all processes' rows along an axis, on their devices, from those of its own."""
        ...


class Windows(NamedTuple):
    """Rows on the host, with any leading axes: the token before the first prediction, and the predictions."""

    token_NS: np.ndarray
    """S = T + 1 tokens in the type that they have on disk."""
    length_N: np.ndarray
    """Predictions, int32: fewer than T at the end of a shard, 0 of a row that is padding."""


class ShardDataset:
    """Rows of token shards, of which the host reads only those that a batch has.

    A row is a window of T = `targets_per_row` predictions: windows lie side by side from each shard's start, and the
    last one of a shard is padded. So every token is predicted once an epoch, from the tokens before it in its row (a
    shard's first from EOS). Of several processes this one reads its `own_rows` of each batch alone. Raises UserError
    for settings of the batch that such data cannot have.
    """

    full = False

    def __init__(
        self,
        config: RunConfig,
        shards: Shards,
        *,
        max_length: int | None,
        shard_rows: ShardRows | None = None,
        own_rows: OwnRows | None = None,
    ):
        if config.batch_size == "full":
            raise UserError("batch_size wants a number with shards, which need not fit into memory, got full")
        T = min(config.data.max_length, max_length or config.data.max_length)
        self._seed, self._order, self._shards, self._shard_rows = config.seed, config.data.order, shards, shard_rows
        self._own_rows = own_rows
        rows_F = np.array([-(-shard.tokens // T) for shard in shards.shards], np.int64)
        self._first_F = np.cumsum(rows_F) - rows_F
        train = int(rows_F[: len(shards.of_split(SPLITS[0]))].sum())
        self.rows: dict[str, Sequence[int]] = {
            "train": range(train),
            "dev": range(train, int(rows_F.sum())),
            "test": range(0),
        }
        """Numbers of each split's rows, for `batch`."""
        self.examples: int = train
        """Rows that train offers in an epoch."""
        self.batch_size: int = config.batch_size
        """Rows in a batch, over all processes."""
        self.rows_per_step: int = config.batch_size
        """Rows that a step trains on: epochs = steps * rows_per_step / examples."""
        self.targets_per_row: int = T
        """Predictions in a row of a batch, padding counted."""
        self._map = lru_cache(OPEN_SHARDS)(lambda number: shards.map(shards.shards[number]))
        self._reader = ThreadPoolExecutor(1, "read-ahead")
        self._ahead: dict[tuple[int, int], Future[Windows]] = {}

    def batches(self, step: int, K: int) -> Batch:
        """The batches of K steps from `step` on, on the device, with leading axes (K, B).

        A thread then reads those of the K steps after them, while the device works: at most one chunk lies ready. What
        is read, and by whom, changes no batch.
        """
        ahead = self._ahead.pop((step, K), None)
        windows = ahead.result() if ahead else self._read_steps(step, K)
        self._ahead = {(step + K, K): self._reader.submit(self._read_steps, step + K, K)}
        return _batch(self._shard_rows, 1, self._shards.eos, self._global(windows, 1, self.batch_size))

    def batch(self, row_B: np.ndarray) -> Batch:
        """One batch of given rows, on the device; -1: weight 0."""
        own_B = row_B[self._own_rows.own(len(row_B))] if self._own_rows else row_B
        return _batch(self._shard_rows, 0, self._shards.eos, self._global(self.read(own_B), 0, len(row_B)))

    def row_numbers(self, step: int, K: int) -> np.ndarray:
        """The rows of K steps from `step` on, of all processes: row_KB, int64.

        Shuffled: position step * B + b of the run is one of epoch // examples, which has each row of train once. With
        replacement: rows are independent.
        """
        B, n = self.batch_size, self.examples
        if self._order == "replacement":
            return order.with_replacement(self._seed, step, K, B, n)
        return order.shuffled(self._seed, step * B, K * B, n).reshape(K, B)

    def read(self, row_N: np.ndarray) -> Windows:
        """Read rows into memory; -1: a row without predictions."""
        T, row_N = self.targets_per_row, np.asarray(row_N, np.int64)
        token_NS = np.full((len(row_N), T + 1), self._shards.eos, self._shards.dtype)
        length_N = np.zeros(len(row_N), np.int32)
        shard_N = np.where(row_N < 0, -1, np.searchsorted(self._first_F, row_N, side="right") - 1)
        for number in np.unique(shard_N[shard_N >= 0]).tolist():
            token_M, here_N = self._map(number), np.flatnonzero(shard_N == number)
            start_N = (row_N[here_N] - self._first_F[number]) * T
            _read_ahead(token_M, start_N, T)
            place_NS = start_N[:, None] + np.arange(-1, T)
            read_NS = token_M[np.clip(place_NS, 0, len(token_M) - 1)]
            token_NS[here_N] = np.where(place_NS < 0, np.array(self._shards.eos, read_NS.dtype), read_NS)
            length_N[here_N] = np.minimum(len(token_M) - start_N, T)
        return Windows(token_NS, length_N)

    def _read_steps(self, step: int, K: int) -> Windows:
        """Read this process's rows of the batches of K steps, with leading axes (K, B) or fewer than B."""
        row_KB = self.row_numbers(step, K)
        if self._own_rows:
            row_KB = row_KB[:, self._own_rows.own(self.batch_size)]
        windows = self.read(row_KB.reshape(-1))
        return Windows(windows.token_NS.reshape(*row_KB.shape, -1), windows.length_N.reshape(row_KB.shape))

    def _global(self, windows: Windows, axis: int, size: int) -> Windows:
        """The windows of all processes, of which this one has its own rows along an axis."""
        return self._own_rows.place(windows, axis, size) if self._own_rows else windows


def _read_ahead(token_M: np.ndarray, start_N: np.ndarray, T: int) -> None:
    """Ask the system for the rows of a mapped shard that begin at start_N, all at once and nothing beside them.

    Without that a row is read when it is touched, one after another, each with the 128 kB around it: of 4 GB that were
    not in memory, 5 to 9 million tokens/s were read instead of 0.2 million.
    """
    base: Any = token_M.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_RANDOM)
        for start in start_N.tolist():
            first = max(start - 1, 0) * token_M.itemsize // mmap.PAGESIZE * mmap.PAGESIZE
            last = min(start + T, len(token_M)) * token_M.itemsize
            base.madvise(mmap.MADV_WILLNEED, first, last - first)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _batch(shard_rows: ShardRows | None, axis: int, eos: int, windows: Windows) -> Batch:
    """Rows to predict, of windows as they were read: what is padding has tokens EOS and weight 0."""
    token, length = jnp.asarray(windows.token_NS).astype(jnp.int32), jnp.asarray(windows.length_N)[..., None]
    inside = jnp.broadcast_to(jnp.arange(token.shape[-1] - 1), token[..., 1:].shape) < length
    batch = Batch(
        jnp.where(inside, token[..., :-1], eos),
        jnp.where(inside, token[..., 1:], eos),
        inside.astype(jnp.float32),
    )
    return shard_rows(batch, axis) if shard_rows else batch
