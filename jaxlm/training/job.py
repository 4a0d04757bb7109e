"""The whole job: settings to data to model to steps to a finished run directory."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from jaxlm.config import RunConfig
from jaxlm.runs import Data, RunDir, hold, read_json


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
    def constants(self) -> Mapping[str, np.ndarray]:
        """Arrays that the model has beside its parameters; empty for most."""
        ...

    def introduce(self, say: Callable[[str], None]) -> None:
        """The start-up lines."""
        ...

    def describe(self, say: Callable[[str], None]) -> None:
        """What --dry-run prints."""
        ...

    def train(self, run: RunDir, say: Callable[[str], None]) -> None:
        """All that makes a run directory complete; last eval.json, which says that the run is done."""
        ...

    def tell_losses(self, run: RunDir, say: Callable[[str], None]) -> None:
        """The losses of a finished run."""
        ...


def train(
    config: RunConfig, *, restart: bool = False, dry_run: bool = False, say: Callable[[str], None] = print
) -> Path | None:
    """Train what the settings describe, or resume it, or say that it is done. Returns the run directory.

    Raises UserError for settings, data or a run directory that cannot be used, before anything is written;
    NonFiniteLoss and Stopped as `Loop.run` does.
    """
    work = settle_work(config)
    work.introduce(say)
    if dry_run:
        work.describe(say)
        return None
    with hold(work.config, work.corpus, restart=restart, constants=work.constants) as (run, state):
        if state == "done":
            say(f"{run.path} is trained already; --restart trains it again")
        else:
            work.train(run, say)
        say(run.samples.read_text("utf-8").rstrip("\n"))
        work.tell_losses(run, say)
        result = read_json(run.eval)
        say(f"step {result['step']:,} of {result['steps']:,}, {result['train_time_s']:.1f} s, in {run.path}")
    return run.path


def settle_work(config: RunConfig) -> Work:
    """Data, model and devices of a run, with the settings filled in that depend on them. Raises UserError."""
    if config.model.predicts_text:
        from jaxlm.training.language import LanguageWork

        return LanguageWork(config)
    from jaxlm.training.word2vec import Word2vecWork

    return Word2vecWork(config)
