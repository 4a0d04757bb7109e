"""What a job asks of each kind of model."""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from jaxlm.config import RunConfig
from jaxlm.runs.claims import Data
from jaxlm.runs.directory import RunDir


class Work(Protocol):
    """A kind of model's part in a job."""

    @property
    def config(self) -> RunConfig:
        """The resolved settings."""
        ...

    @property
    def corpus(self) -> Data:
        """The data."""
        ...

    @property
    def buffers(self) -> Mapping[str, np.ndarray]:
        """Arrays that the model has beside its parameters; empty for most."""
        ...

    @property
    def init_from(self) -> str | None:
        """SHA-256 of the parameters that the run named by init_from gives; None without one."""
        ...

    @property
    def before(self) -> "Work | None":
        """What has to be trained first, in a run directory of its own; None for most."""
        ...

    def follow(self, before: RunDir) -> None:
        """Take what came first."""
        ...

    def introduce(self, log: Callable[[str], None]) -> None:
        """The start-up lines."""
        ...

    def describe(self, log: Callable[[str], None]) -> None:
        """What --dry-run prints."""
        ...

    def train(self, run: RunDir, log: Callable[[str], None]) -> None:
        """All that makes a run directory complete; last eval.json, which says that the run is done."""
        ...

    def tell_losses(self, run: RunDir, log: Callable[[str], None]) -> None:
        """The losses of a finished run."""
        ...
