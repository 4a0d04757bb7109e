"""Sinks that take the lines of metrics.jsonl as they are written: TensorBoard and Weights & Biases."""

import os
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol

from jaxlm.config import RunConfig
from jaxlm.config.serialization import to_json
from jaxlm.errors import UserError, check_fields, one_line
from jaxlm.runs.directory import RunDir, decoding, read_json, write_json

SHOWN = ("nats_per_token", "bits_per_byte", "tokens_per_s", "lr", "mfu", "grad_norm")
"""Numbers of a line that are shown, each under its split's name."""
PROJECT = "jaxlm"
"""The project of Weights & Biases where WANDB_PROJECT names none."""


class Sink(Protocol):
    """Interface of a place that takes the lines of metrics.jsonl."""

    def write(self, line: Mapping[str, Any]) -> None:
        """Take one line."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class TensorBoard:
    """TensorBoard's files in the run directory. Steps beyond `step`, at which a run resumes, are taken back."""

    def __init__(self, run: RunDir, step: int):
        self._writer = summary_writer()(str(run.tensorboard), purge_step=step + 1)

    def write(self, line: Mapping[str, Any]) -> None:
        """Add the line's numbers."""
        for name, value in _shown(line):
            self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Flush and close the files."""
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases, the same one at each resume.

    What has been logged cannot be taken back: wandb.json holds the run's id and the last step that was logged of each
    split, and lines up to it, which a resumed run writes again, are left out. Offline, the files lie in the run
    directory's wandb/ until `wandb sync` sends them. Raises UserError where the service refuses.
    """

    def __init__(self, run: RunDir, config: RunConfig, mode: Literal["offline", "online"]):
        wandb = wandb_module()
        self._path = run.wandb
        self._kept: dict[str, Any] = {"id": secrets.token_hex(4), "logged": {}}
        if self._path.exists():
            self._kept = read_json(self._path, "delete it to begin another run of Weights & Biases")
            with decoding(self._path, "delete it to begin another run of Weights & Biases"):
                check_fields(self._kept, id=(str,), logged=(dict,))
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=run.path.name,
                id=self._kept["id"],
                dir=str(run.path),
                mode=mode,
                resume="allow" if mode == "online" else None,
                config=to_json(config),
                settings=wandb.Settings(silent=True, console="off"),
            )
        except wandb.Error as error:
            raise UserError(
                f"wandb {mode} cannot begin: {one_line(str(error))}; run `wandb login` first, or take --wandb offline"
            ) from error
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def write(self, line: Mapping[str, Any]) -> None:
        """Log the line's numbers, unless its step has been logged."""
        split, step, numbers = line["split"], line["step"], dict(_shown(line))
        if not numbers or step <= self._kept["logged"].get(split, -1):
            return
        self._kept["logged"][split] = step
        write_json(self._path, self._kept)
        self._run.log({"step": step, **numbers})

    def close(self) -> None:
        """Wait until everything is written or sent."""
        self._run.finish()


def check_installed(config: RunConfig) -> None:
    """Raise UserError where a sink that is asked for is not installed."""
    if config.tensorboard:
        summary_writer()
    if config.wandb:
        wandb_module()


def open_sinks(config: RunConfig, run: RunDir, step: int) -> list[Sink]:
    """The sinks that the settings ask for, of a run that begins (step -1) or resumes after a step."""
    sinks: list[Sink] = [TensorBoard(run, step)] if config.tensorboard else []
    return [*sinks, WeightsAndBiases(run, config, config.wandb)] if config.wandb else sinks


def summary_writer() -> Any:
    """Import the class that writes TensorBoard's files. Raises UserError if tensorboardX is not installed."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UserError("tensorboard wants the extra: pip install 'jaxlm[tensorboard]'") from None
    return SummaryWriter


def wandb_module() -> Any:
    """Import Weights & Biases. Raises UserError if it is not installed."""
    try:
        import wandb
    except ImportError:
        raise UserError("wandb wants the extra: pip install 'jaxlm[wandb]'") from None
    return wandb


def _shown(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name in SHOWN:
        if line.get(name) is not None:
            yield f"{line['split']}/{name}", line[name]
