"""The training step of word2vec, whose workers run in parallel, and its loss per pair."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.inference.evaluation import Interrupted, Stop, never
from jaxlm.models.base import Params
from jaxlm.word2vec.model import DeviceBatch, RowChanges, Word2vec, add_changes
from jaxlm.word2vec.reader import BatchCounts, Reader


class PairLoss(NamedTuple):
    """The loss of a split, summed over its pairs of words."""

    nats: float
    """Summed loss in nats."""
    pairs: int
    """Predictions in the sum."""
    words: int
    """Words read, before subsampling."""

    @property
    def loss(self) -> float | None:
        """The mean loss in nats per pair; None if there is no pair."""
        return self.nats / self.pairs if self.pairs else None

    def to_json(self) -> dict[str, Any]:
        """The split's entry in eval.json, with null likelihoods, since word2vec has none."""
        none = {"nats_per_token": None, "bits_per_byte": None, "perplexity": None, "bytes": None}
        return {"loss": self.loss, "unit": "nats/pair", "pairs": self.pairs, "tokens": self.words, **none}

    def metrics_line(self, step: int, split: str, *, seconds: float, time_s: float) -> dict[str, Any]:
        """The line of metrics.jsonl: `seconds` is the time of the evaluation, `time_s` the time into the run."""
        speed = {"tokens_per_s": self.words / max(seconds, 1e-9), "lr": None, "time_s": time_s}
        return {"step": step, "split": split, "loss": self.loss, **pair_fields(), **speed}


def pair_fields(mean: float = 0.0) -> dict[str, Any]:
    """The fields of a line of metrics.jsonl beside a mean loss in nats per pair."""
    return {"unit": "nats/pair", "nats_per_token": None, "bits_per_byte": None}


class Trainer:
    """Runs the compiled steps of one model, with a thread for each worker, or the workers one after another."""

    def __init__(self, model: Word2vec, *, one_by_one: bool = False):
        self._workers, self._one_by_one = model.config.workers, one_by_one
        self._train = jax.jit(model.train)
        self._add = jax.jit(add_changes, donate_argnums=0)
        self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="workers")

    def step(self, params: Params, reader: Reader, step: int, rate: float) -> tuple[Params, float, BatchCounts]:
        """Run one step, donating the parameters; returns the new ones, the summed loss in nats, and the counts."""
        if not self._one_by_one:
            done = self._run(params, reader, step, rate)
            return self._add(params, [change for change, _, _ in done]), *_sums(done)
        done = []
        for worker in range(self._workers):
            done.append(self._part(params, reader, step, worker, rate))
            params = self._add(params, [done[-1][0]])
        return params, *_sums(done)

    def score(self, params: Params, reader: Reader, steps: range, stop: Stop = never) -> PairLoss:
        """Evaluate the loss on some of a reader's steps: training at a rate of 0, with the changes dropped.

        Raises Interrupted as soon as `stop` returns True.
        """
        done = []
        for step in steps:
            if stop():
                raise Interrupted
            done.append(_sums(self._run(params, reader, step, 0.0)))
        pairs, words = sum(counts.pairs for _, counts in done), sum(counts.words for _, counts in done)
        return PairLoss(math.fsum(nats for nats, _ in done), pairs, words)

    def _run(
        self, params: Params, reader: Reader, step: int, rate: float
    ) -> list[tuple[RowChanges, float, BatchCounts]]:
        return list(
            self._threads.map(lambda worker: self._part(params, reader, step, worker, rate), range(self._workers))
        )

    def _part(
        self, params: Params, reader: Reader, step: int, worker: int, rate: float
    ) -> tuple[RowChanges, float, BatchCounts]:
        batch, counts = reader.worker_batch(step, worker)
        change, loss_S = self._train(params, DeviceBatch(*map(jnp.asarray, batch)), jnp.float32(rate))
        return change, float(np.asarray(loss_S).sum(dtype=np.float64)), counts


def _sums(done: list[tuple[RowChanges, float, BatchCounts]]) -> tuple[float, BatchCounts]:
    counts = BatchCounts(sum(one.words for *_, one in done), sum(one.pairs for *_, one in done))
    return math.fsum(loss for _, loss, _ in done), counts
