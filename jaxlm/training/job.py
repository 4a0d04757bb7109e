"""A job: one training of any kind of model, ready to begin."""

import abc
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from jaxlm.config import RunConfig
from jaxlm.models.base import Params
from jaxlm.runs.directory import RunDir
from jaxlm.runs.fingerprint import RunData
from jaxlm.training.cadence import Cadence
from jaxlm.training.state import Chunk, TrainState


class SplitScore(Protocol):
    """The loss of a split."""

    @property
    def nats(self) -> float:
        """The summed loss in nats."""
        ...

    @property
    def loss(self) -> float | None:
        """The mean loss by which checkpoints are compared; None where it is infinite."""
        ...

    def metrics_line(self, step: int, split: str, *, seconds: float, time_s: float) -> dict[str, Any]:
        """The line of metrics.jsonl: `seconds` is the time of the evaluation, `time_s` the time into the run."""
        ...


class Job(abc.ABC):
    """One training: its resolved settings, data and devices. Making one writes nothing."""

    config: RunConfig
    buffers: Mapping[str, np.ndarray]
    """Arrays that the model reads beside its parameters and that are not trained; empty for most models."""
    init_hash: str | None
    """SHA-256 of the parameters that init_from gives; None without init_from."""
    may_begin: bool = True
    """False where init_from is gone, so that training can only resume from a checkpoint."""

    @property
    @abc.abstractmethod
    def data(self) -> RunData:
        """The data of the run."""

    @abc.abstractmethod
    def summary(self) -> list[str]:
        """The lines that are logged before training."""

    @abc.abstractmethod
    def details(self) -> list[str]:
        """The lines that a dry run adds: parameters, memory, tokens."""

    @abc.abstractmethod
    def cadence(self, chunk: int | None) -> Cadence:
        """The points of the run, with the steps of a chunk that a checkpoint holds or, for None, a choice."""

    @abc.abstractmethod
    def abstract_state(self) -> TrainState | None:
        """Shapes, types and shardings of the state; None for a model that is counted anew in place of resumed."""

    @abc.abstractmethod
    def initial_state(self) -> TrainState:
        """The state before the first step."""

    @abc.abstractmethod
    def run_chunk(self, state: TrainState, step: int, K: int) -> tuple[TrainState, Chunk]:
        """K steps after `step`, dispatched; the memory of the given state is taken."""

    @abc.abstractmethod
    def evaluate(self, params: Params) -> Mapping[str, SplitScore]:
        """The losses of the splits that are followed, "dev" among them where there is one."""

    def calibrate(self, params: Params) -> Params:
        """The parameters with those brought up to date that training leaves alone: a function of the others."""
        return params

    @abc.abstractmethod
    def loss_fields(self, mean: float) -> dict[str, Any]:
        """The fields of a train line beside the mean loss: "unit", "nats_per_token" and "bits_per_byte"."""

    @abc.abstractmethod
    def finish(self, run: RunDir, seconds: float) -> dict[str, Any]:
        """Write samples and pictures with the best parameters; returns the content of eval.json."""

    @abc.abstractmethod
    def losses(self, result: dict[str, Any], run: RunDir) -> list[str]:
        """The lines that report the losses of eval.json."""
