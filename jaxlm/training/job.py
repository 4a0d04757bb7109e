"""The interface of a job: one training of any kind of model, prepared and not yet begun."""

import abc
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from jaxlm.config import RunConfig
from jaxlm.config.serialization import to_json
from jaxlm.inference.evaluation import Stop, never
from jaxlm.models.base import Params
from jaxlm.runs.directory import RunDir, dump
from jaxlm.runs.fingerprint import RunData
from jaxlm.training.cadence import Cadence
from jaxlm.training.state import Chunk, TrainState


class SplitScore(Protocol):
    """Interface of the loss of a split."""

    @property
    def nats(self) -> float:
        """The summed loss in nats."""
        ...

    @property
    def loss(self) -> float | None:
        """The mean loss by which checkpoints are compared; None if it is infinite."""
        ...

    def metrics_line(self, step: int, split: str, *, seconds: float, time_s: float) -> dict[str, Any]:
        """The line of metrics.jsonl: `seconds` is the time of the evaluation, `time_s` the time into the run."""
        ...


class Job(abc.ABC):
    """One training with its resolved settings, data and devices. Preparing it writes nothing to the run directory."""

    config: RunConfig
    """The resolved settings."""
    buffers: Mapping[str, np.ndarray]
    """Arrays of the model that are not trained; empty for most models."""
    init_hash: str | None
    """SHA-256 of the parameters that init_from gives; None without init_from."""
    may_begin: bool = True
    """False if init_from is gone, so that training can only resume from a checkpoint."""
    uniform_loss: float | None = None
    """The training loss of a model that knows nothing; None if it is not known."""
    initial_loss: float | None = None
    """The training loss before the first step, where that of the first step is another: it has many updates."""

    @property
    def seconds_at_peak(self) -> float | None:
        """Seconds that a step's operations take at the devices' peak, by which MFU is measured; None if not known."""
        return None

    @property
    @abc.abstractmethod
    def data(self) -> RunData:
        """The parts of the corpus that the run directory keeps."""

    @abc.abstractmethod
    def summary(self) -> list[str]:
        """The lines that are logged before training."""

    @abc.abstractmethod
    def details(self) -> list[str]:
        """The lines that a dry run adds: parameters, memory, tokens."""

    def opening(self, *, dry_run: bool) -> list[str]:
        """The lines before training: a summary, and in a dry run the settings and sizes too."""
        return [*self.summary(), *((dump(to_json(self.config)), *self.details()) if dry_run else ())]

    @abc.abstractmethod
    def cadence(self, chunk: int | None) -> Cadence:
        """The cadence of the run, with a checkpoint's steps of a chunk, or a new choice for None."""

    @abc.abstractmethod
    def abstract_state(self) -> TrainState | None:
        """Shapes, types and shardings of the state; None for a count model, which is counted again, not resumed."""

    @abc.abstractmethod
    def initial_state(self) -> TrainState:
        """The state before the first step."""

    @abc.abstractmethod
    def run_chunk(self, state: TrainState, step: int, K: int) -> tuple[TrainState, Chunk]:
        """Dispatch the K steps after `step`, donating the state."""

    @abc.abstractmethod
    def evaluate(self, params: Params, stop: Stop = never) -> Mapping[str, SplitScore]:
        """Evaluate the splits that are followed during training, "dev" among them if it exists.

        Raises Interrupted within about a second after `stop` returns True.
        """

    def calibrate(self, params: Params) -> Params:
        """Recompute the parameters that steps do not train, as a function of those that they do."""
        return params

    def where_not_finite(self, params: Params) -> str:
        """The words " of ..." for where a parameter is not finite, after `all_finite` has found one; "" for one run."""
        return ""

    @abc.abstractmethod
    def loss_fields(self, mean: float) -> dict[str, Any]:
        """The fields of a train line beside the mean loss: "unit", "nats_per_token" and "bits_per_byte"."""

    @abc.abstractmethod
    def finish(self, run: RunDir, seconds: float) -> dict[str, Any]:
        """Evaluate the best parameters, write samples and plots; returns the content of eval.json."""

    @abc.abstractmethod
    def losses(self, result: dict[str, Any], run: RunDir) -> list[str]:
        """The lines that report the losses of eval.json."""
