"""The points of a run's grid: what is told and kept of each."""

import dataclasses
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

from jaxlm.errors import check_fields
from jaxlm.training.state import Chunk, TrainState


@dataclasses.dataclass
class Tally:
    """What has been summed since the last train line, and the seconds spent; goes with each checkpoint."""

    loss_sum: float = 0.0
    steps: float = 0
    """Of the losses summed; where steps have weights, these."""
    tokens: int = 0
    seconds_at_line: float = 0.0
    seconds: float = 0.0

    @classmethod
    def from_notes(cls, notes: dict[str, Any]) -> "Tally | None":
        """That of a checkpoint's notes; None where they are damaged."""
        try:
            tally = cls(**notes["tally"])
            check_fields(vars(tally), **dict.fromkeys(vars(tally), (int, float)))
        except (LookupError, TypeError, ValueError):
            return None
        return tally


class Scored(Protocol):
    """The loss of a split."""

    @property
    def nats(self) -> float:
        """Summed."""
        ...

    @property
    def loss(self) -> float | None:
        """The mean, by which checkpoints are compared; None where it is infinite."""
        ...

    def metrics_line(self, step: int, split: str, *, seconds: float, time_s: float) -> dict[str, Any]:
        """The line of metrics.jsonl."""
        ...


class Scores(NamedTuple):
    """Each split's score, "dev" among them where there is one, and how long they took."""

    splits: Mapping[str, Scored]
    seconds: float


class Best(NamedTuple):
    """Parameters than which no others have a better dev loss."""

    params: Any
    scores: Mapping[str, Scored]
    """What is known of their losses: each split's that has been scored."""


class Point(NamedTuple):
    """A point of the grid: what is to be told and kept of it, once its arrays have arrived."""

    step: int
    chunk: Chunk | None
    """The steps that led here; none did to step 0."""
    logs: bool
    scores: Future[Scores] | None
    """The losses of the splits, where they are taken."""
    saved: tuple[TrainState, Future[bool]] | None
    """A copy to save, and whether all of its parameters are finite: the next chunk takes the state's own memory."""
    ended: float | None = None
    """When the steps that led here had ended; None as long as that is not known."""

    @property
    def has_copy(self) -> bool:
        """Whether it keeps parameters until it is told."""
        return bool(self.scores or self.saved)
