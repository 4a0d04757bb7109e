"""Metrics and checkpoints of seeds that train together: each seed's own lines, and the best step of each."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np

from jaxlm.runs import checkpoints
from jaxlm.runs.checkpoints import NO_DEV_LOSS, CheckpointWriter
from jaxlm.runs.directory import RunDir
from jaxlm.training.job import Job
from jaxlm.training.progress import NOWHERE, Progress
from jaxlm.training.recorder import Recorder, Sums
from jaxlm.training.seeds.job import SeedsJob
from jaxlm.training.seeds.results import SeedsScore
from jaxlm.training.state import Chunk

DEV_LOSSES, SUMS = "dev_losses", "sums_of_seeds"
"""Metadata of a checkpoint: the dev loss of each seed (None where none was evaluated), and each seed's running sums."""


class SeedsRecorder(Recorder):
    """Writes each seed's metrics into its own directory, as its single run does, and their means into the group's."""

    def __init__(self, job: Job, run: RunDir, *, steps: int, step: int, sums: Sums, log: Callable[[str], None] = print):
        assert isinstance(job, SeedsJob)
        super().__init__(job, run, steps=steps, step=step, sums=sums, log=log)
        self._waiting: tuple[int, Chunk, bool] | None = None
        self._dev_losses: list[float | None] | None = None
        before = _sums_at(run, step) or [Sums() for _ in job.jobs]
        self._own = [
            _OneRecorder(self, seed, one, own, steps=steps, step=step, sums=was, log=log)
            for seed, one, own, was in zip(job.seeds, job.jobs, job.runs, before, strict=True)
        ]

    def __exit__(self, *error: object) -> None:
        for own in self._own:
            own.__exit__(*error)
        super().__exit__(*error)

    def metadata(self) -> dict[str, Any]:
        """Checkpoint metadata of the group and of each seed."""
        sums = [dataclasses.asdict(own._sums) for own in self._own]
        return {**super().metadata(), SUMS: sums, DEV_LOSSES: self._dev_losses}

    def chunk(self, step: int, chunk: Chunk, *, logs: bool) -> None:
        """Take the metrics of the chunk that ends at `step`, and write those of the chunk before it."""
        self.flush()
        self._waiting, self._dev_losses = (step, chunk, logs), None

    def flush(self) -> None:
        """Wait for the newest chunk and write its metrics. Raises NonFiniteLoss, naming the seed."""
        if self._waiting is None:
            return
        (step, chunk, logs), self._waiting = self._waiting, None
        chunk = jax.device_get(chunk)
        for n, own in enumerate(self._own):
            own.chunk(step, jax.tree.map(lambda x, n=n: x[n], chunk), logs=logs)
            own.flush()
        self._sums.skipped = sum(own._sums.skipped for own in self._own)
        super().chunk(step, _mean_chunk(chunk), logs=logs)
        super().flush()

    def scores(self, step: int, scores: Mapping[str, Any]) -> float | None:
        """Write newly evaluated losses of splits; returns the mean dev loss. Raises NonFiniteLoss, naming the seed."""
        for n, own in enumerate(self._own):
            own.scores(step, {split: score.of_seeds[n] for split, score in scores.items()})
        dev: SeedsScore | None = scores.get("dev")
        self._dev_losses = None if dev is None else [score.loss for score in dev.of_seeds]
        return super().scores(step, scores)


class _OneRecorder(Recorder):
    """Writes one seed's metrics; shows no progress, and fails in the name of the group."""

    def __init__(
        self, group: Recorder, seed: int, job: Job, run: RunDir, *, steps: int, step: int, sums: Sums, log: Any
    ):
        silent = Progress(steps, step, out=NOWHERE)
        self._group, self._seed = group, seed
        super().__init__(
            job,
            run,
            steps=steps,
            step=step,
            sums=sums,
            log=lambda line: log(f"seed {seed}: {line}"),
            progress=silent,
        )

    def fail(self, reason: str, step: int) -> NoReturn:
        """Raise NonFiniteLoss naming the seed."""
        self._group.fail(f"seed {self._seed}: {reason}", step)
        raise AssertionError(reason)

    def _show(self) -> None:
        self._shown = None


class SeedsWriter(CheckpointWriter):
    """Saves the stacked states, and keeps beside the newest ones the best of each seed by its own dev loss."""

    def __init__(self, directory: Path, keep: int):
        super().__init__(directory, keep)
        self._of_seeds = {one.step: one.metadata.get(DEV_LOSSES) for one in checkpoints.saved(directory)}

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """True for each checkpoint to keep, oldest first (Orbax's preservation policy)."""
        steps_C = [one.step for one in checkpoints]
        best = set(best_steps({step: self._of_seeds.get(step) for step in steps_C}))
        return [step in steps_C[-self._keep :] or step in best for step in steps_C]

    def save(self, step: int, items: dict[str, Any], *, dev_loss: float | None, metadata: dict[str, Any]) -> None:
        """Begin to save the items of the stacked state, with the dev loss of each seed where it is the state's."""
        self._of_seeds[step] = None if dev_loss is None else metadata[DEV_LOSSES]
        metadata = {**metadata, DEV_LOSSES: self._of_seeds[step]}
        super().save(step, items, dev_loss=dev_loss, metadata=metadata)


def best_steps(dev_losses: Mapping[int, Sequence[float | None] | None]) -> list[int]:
    """The step of each seed's least dev loss, the newest where several have it; none where no step has dev losses."""
    known = {step: [NO_DEV_LOSS if x is None else x for x in losses] for step, losses in dev_losses.items() if losses}
    count = len(next(iter(known.values()), ()))
    return [min((losses[n], -step, step) for step, losses in known.items())[2] for n in range(count)]


def _sums_at(run: RunDir, step: int) -> list[Sums] | None:
    """The seeds' running sums in the checkpoint of a step; None at step 0."""
    found = [one for one in checkpoints.saved(run.checkpoints) if one.step == step]
    if not found:
        return None
    return [Sums.from_metadata({"sums": sums}) or Sums() for sums in found[0].metadata[SUMS]]


def _mean_chunk(chunk: Chunk) -> Chunk:
    """The metrics of all seeds together: mean losses, the tokens of all. A step that a seed skipped does not count."""
    loss_NK = np.asarray(chunk.loss_K, np.float64)
    counts_NK = np.ones(loss_NK.shape) if chunk.nonfinite_K is None else (np.asarray(chunk.nonfinite_K) == 0) * 1.0
    weight_K = counts_NK.sum(axis=0)
    loss_K = np.where(counts_NK > 0, loss_NK, 0.0).sum(axis=0) / np.maximum(weight_K, 1)
    return Chunk(
        loss_K=loss_K,
        count_K=np.asarray(chunk.count_K).sum(axis=0),
        lr=float(np.asarray(chunk.lr)[0]),
        weight_K=weight_K,
        grad_norm=None if chunk.grad_norm is None else np.asarray(chunk.grad_norm).mean(),
    )
