"""The step of word2vec, whose workers run side by side, and the loss per pair that they add up to."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.models.base import Params
from jaxlm.word2vec.model import DeviceBatch, RowChanges, Word2vec, add_changes
from jaxlm.word2vec.reader import BatchCounts, Reader


class PairLoss(NamedTuple):
    """The loss of a split in nats per pair."""

    nats: float
    pairs: int
    words: int
    """Words read, before subsampling."""

    @property
    def loss(self) -> float | None:
        """The mean loss in nats per pair; None without a pair."""
        return self.nats / self.pairs if self.pairs else None

    def to_json(self) -> dict[str, Any]:
        """The entry of eval.json; word2vec gives no text a likelihood."""
        none = {"nats_per_token": None, "bits_per_byte": None, "perplexity": None, "bytes": None}
        return {"loss": self.loss, "unit": "nats/pair", "pairs": self.pairs, "tokens": self.words, **none}

    def metrics_line(self, step: int, split: str, *, seconds: float, time_s: float) -> dict[str, Any]:
        """The line of metrics.jsonl for this score, which took `seconds` to find, `time_s` into the run."""
        speed = {"tokens_per_s": self.words / max(seconds, 1e-9), "lr": None, "time_s": time_s}
        return {"step": step, "split": split, "loss": self.loss, **pair_fields(), **speed}


def pair_fields(mean: float = 0.0) -> dict[str, Any]:
    """What a line of metrics.jsonl says beside a mean loss in nats per pair."""
    return {"unit": "nats/pair", "nats_per_token": None, "bits_per_byte": None}


class Trainer:
    """The compiled updates of one model. The workers of a step run in threads, side by side."""

    def __init__(self, model: Word2vec):
        self._workers = model.config.workers
        self._train = jax.jit(model.train)
        self._add = jax.jit(add_changes, donate_argnums=0)
        self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="workers")

    def step(self, params: Params, reader: Reader, step: int, rate: float) -> tuple[Params, float, BatchCounts]:
        """One step: the parameters (whose memory is taken), its summed loss, and what it counted."""
        done = self._run(params, reader, step, rate)
        return self._add(params, [change for change, _, _ in done]), *_sums(done)

    def score(self, params: Params, reader: Reader, steps: range) -> PairLoss:
        """The loss of some of a reader's steps with the parameters as they are: its words are drawn at a rate of 0."""
        done = [_sums(self._run(params, reader, step, 0.0)) for step in steps]
        pairs, words = sum(counts.pairs for _, counts in done), sum(counts.words for _, counts in done)
        return PairLoss(math.fsum(nats for nats, _ in done), pairs, words)

    def _run(
        self, params: Params, reader: Reader, step: int, rate: float
    ) -> list[tuple[RowChanges, float, BatchCounts]]:
        def one(worker: int) -> tuple[RowChanges, float, BatchCounts]:
            batch, counts = reader.worker_batch(step, worker)
            change, loss_S = self._train(params, DeviceBatch(*map(jnp.asarray, batch)), jnp.float32(rate))
            return change, float(np.asarray(loss_S).sum(dtype=np.float64)), counts

        return list(self._threads.map(one, range(self._workers)))


def _sums(done: list[tuple[RowChanges, float, BatchCounts]]) -> tuple[float, BatchCounts]:
    counts = BatchCounts(sum(one.words for *_, one in done), sum(one.pairs for *_, one in done))
    return math.fsum(loss for _, loss, _ in done), counts
