"""The record of a training: train lines, losses of the splits, the progress line, and running sums for checkpoints."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxlm.devices import platform, processes
from jaxlm.errors import NonFiniteLoss, check_fields
from jaxlm.runs.directory import RunDir
from jaxlm.runs.metrics import MetricsLog, NoLog
from jaxlm.runs.sinks import open_sinks
from jaxlm.training.job import Job, SplitScore
from jaxlm.training.progress import NOWHERE, Progress
from jaxlm.training.state import Chunk

DIVERGED = 4.0
"""Training has failed where its mean loss is at least this multiple of the loss it began with."""


@dataclasses.dataclass
class Sums:
    """Running sums since the last train line, and numbers of the whole run; saved with each checkpoint."""

    loss: float = 0.0
    """Weighted sum of the losses of the steps."""
    weight: float = 0.0
    """Sum of the weights."""
    tokens: int = 0
    """Tokens trained on."""
    steps: int = 0
    """Steps since the last train line."""
    training_s: float = 0.0
    """Seconds of training since the last train line, without evaluations."""
    run_s: float = 0.0
    """Seconds of the whole run, over all resumes."""
    start: float | None = None
    """Loss of the first step that predicted something, or the job's initial_loss."""
    best: float | None = None
    """Least dev loss."""
    waited: int = 0
    """Evaluations since the least dev loss."""
    skipped: int = 0
    """Steps of the whole run whose gradient was not finite and was skipped."""

    @classmethod
    def from_metadata(cls, metadata: dict[str, Any]) -> "Sums | None":
        """Read the sums from a checkpoint's metadata; None if they are damaged."""
        try:
            sums = cls(**metadata["sums"])
            absent = dict.fromkeys(("start", "best"), (int, float, type(None)))
            check_fields(vars(sums), **(dict.fromkeys(vars(sums), (int, float)) | absent))
        except (LookupError, TypeError, ValueError):
            return None
        return sums


class Recorder:
    """Writes the metrics of a run. Chunks are fetched one late, so that the device never waits for the log.

    Of several processes the first writes; the others follow the same losses.
    """

    def __init__(
        self,
        job: Job,
        run: RunDir,
        *,
        steps: int,
        step: int,
        sums: Sums,
        log: Callable[[str], None] = print,
        progress: Progress | None = None,
    ):
        self._job, self._steps, self._sums, self._patience = job, steps, sums, job.config.eval.patience
        self.last_saved = step or None
        """Step of the newest checkpoint."""
        self._pending: tuple[int, Chunk, bool] | None = None
        self._say, self._most_skipped = log, job.config.optim.skip_nonfinite
        self._seconds_at_peak = job.seconds_at_peak
        kept = step or -1
        unit, first = "tokens" if job.config.model.predicts_text else "words", processes.is_first()
        self._log = MetricsLog(run.metrics, open_sinks(job.config, run, kept), step=kept) if first else NoLog()
        self._progress = progress or Progress(steps, step, None if first else NOWHERE, unit=unit)
        self._shown: tuple[int, float | None, dict[str, float]] | None = None
        """Step, loss and speeds of a chunk that the progress line does not show yet."""
        self._clock = time.monotonic()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.close()
        self._log.close()

    @property
    def seconds(self) -> float:
        """Seconds of the run until the newest record."""
        return self._sums.run_s

    @property
    def out_of_patience(self) -> bool:
        """True if the dev loss has not fallen for eval.patience evaluations."""
        return self._patience is not None and self._sums.waited >= self._patience

    def metadata(self) -> dict[str, Any]:
        """Checkpoint metadata with which a resumed run writes the same lines as an uninterrupted one."""
        return {"sums": dataclasses.asdict(self._sums)}

    def chunk(self, step: int, chunk: Chunk, *, logs: bool) -> None:
        """Take the metrics of the chunk that ends at `step`, and write those of the chunk before it."""
        self.flush()
        self._pending = step, chunk, logs

    def flush(self) -> None:
        """Wait for the newest chunk and write its metrics. Raises NonFiniteLoss for a loss that is not finite, or far
        above the loss of the first step.
        """
        if self._pending is None:
            return
        (step, chunk, logs), self._pending = self._pending, None
        loss_K = np.asarray(chunk.loss_K, np.float64)
        self._sums.training_s += self._lap()
        weight_K = np.ones(len(loss_K)) if chunk.weight_K is None else np.asarray(chunk.weight_K, np.float64)
        if chunk.nonfinite_K is not None:
            is_skipped_K = self._skip(step, np.asarray(chunk.nonfinite_K))
            loss_K, weight_K = np.where(is_skipped_K, 0.0, loss_K), np.where(is_skipped_K, 0.0, weight_K)
        bad_K = np.flatnonzero(~np.isfinite(loss_K))
        if bad_K.size:
            self.fail(f"the loss is {loss_K[bad_K[0]]}", step - len(loss_K) + int(bad_K[0]) + 1)
        tokens = int(np.asarray(chunk.count_K, np.float64).sum())
        self._sums.loss += float((loss_K * weight_K).sum())
        self._sums.weight += float(weight_K.sum())
        self._sums.tokens += tokens
        self._sums.steps += len(loss_K)
        known_K = loss_K[weight_K > 0]
        if self._sums.start is None and known_K.size:
            initial = self._job.initial_loss
            self._sums.start = float(known_K[0]) if initial is None else initial
        self._refuse_divergence(step)
        speeds = self._speeds()
        if logs and len(loss_K):
            self._train_line(step, float(chunk.lr), chunk.grad_norm, speeds)
        if len(loss_K):
            self._shown = step, float(known_K[-1]) if known_K.size else None, speeds
            if step < self._steps:  # the last line of progress waits for the last dev loss
                self._show()

    def scores(self, step: int, scores: Mapping[str, SplitScore]) -> float | None:
        """Write newly evaluated losses of splits; returns the dev loss. Raises NonFiniteLoss."""
        seconds = self._lap()
        dev = scores["dev"].loss if "dev" in scores else None
        for split, score in scores.items():
            if not math.isfinite(score.nats):
                self.fail(f"the {split} loss is {score.nats}", step)
            self._log.write(**score.metrics_line(step, split, seconds=seconds, time_s=self._sums.run_s))
        if "dev" in scores:
            self._follow(math.inf if dev is None else dev)
        self._progress.dev(dev)
        self._show()
        return dev

    def fail(self, reason: str, step: int) -> None:
        """Raise NonFiniteLoss naming the last good checkpoint, and settings that may help and that the model takes."""
        good = (
            "no checkpoint was saved before"
            if self.last_saved is None
            else f"the last good checkpoint is step {self.last_saved}"
        )
        config = self._job.config
        clip = ", or --optim.clip 1" if config.model.predicts_text and config.optim.clip is None else ""
        raise NonFiniteLoss(
            f"{reason} at step {step} of {self._steps}; {good}; "
            f"try a smaller --optim.lr{clip}, in another --run-dir or with --restart"
        )

    def _skip(self, step: int, nonfinite_K: np.ndarray) -> np.ndarray:
        """True for each step of a chunk that was skipped. Raises NonFiniteLoss where too many were in a row."""
        is_skipped_K = nonfinite_K > 0
        first = step - len(nonfinite_K) + 1
        if (too_many_K := np.flatnonzero(nonfinite_K >= (self._most_skipped or 1))).size:
            many = "1 gradient is" if self._most_skipped == 1 else f"{self._most_skipped} gradients in a row are"
            self.fail(f"{many} not finite (optim.skip_nonfinite)", first + int(too_many_K[0]))
        if count := int(is_skipped_K.sum()):
            self._sums.skipped += count
            last = first + int(np.flatnonzero(is_skipped_K)[-1])
            many = "a gradient that is" if count == 1 else f"{count:,} gradients that are"
            self._say(f"skipped {many} not finite, up to step {last:,}: {self._sums.skipped:,} in the run")
        return is_skipped_K

    def _refuse_divergence(self, step: int) -> None:
        """Raise NonFiniteLoss if the mean loss since the last train line is DIVERGED times that of the first step.

        A run that starts from good parameters is compared with a model that knows nothing.
        """
        sums = self._sums
        start = max(sums.start or 0.0, self._job.uniform_loss or 0.0)
        mean = sums.loss / sums.weight if sums.weight else 0.0
        if mean > DIVERGED * start > 0:
            self.fail(f"the loss, {sums.start:.4g} at the start, is {mean:.4g}", step)

    def _follow(self, dev: float) -> None:
        """Count the evaluations since the least dev loss."""
        sums = self._sums
        if sums.best is None or dev < sums.best:
            sums.best, sums.waited = (dev if math.isfinite(dev) else None), 0
        else:
            sums.waited += 1

    def _show(self) -> None:
        if self._shown is not None:
            step, loss, speeds = self._shown
            self._progress.steps(step, loss, memory=platform.memory_in_use(), **speeds)
            self._shown = None

    def _speeds(self) -> dict[str, float]:
        """tokens_per_s and, where it is known, mfu, both since the last train line."""
        sums, seconds = self._sums, max(self._sums.training_s, 1e-9)
        at_peak = {} if self._seconds_at_peak is None else {"mfu": self._seconds_at_peak * sums.steps / seconds}
        return {"tokens_per_s": sums.tokens / seconds, **at_peak}

    def _train_line(self, step: int, lr: float, grad_norm: jax.Array | None, speeds: dict[str, float]) -> None:
        sums = self._sums
        known = {} if grad_norm is None else {"grad_norm": float(grad_norm)}
        if self._most_skipped is not None:
            known["skipped"] = sums.skipped
        mean = sums.loss / sums.weight if sums.weight else math.nan
        self._log.write(
            step=step,
            split="train",
            loss=mean,
            **self._job.loss_fields(mean),
            **speeds,
            lr=lr,
            time_s=sums.run_s,
            **known,
        )
        self._sums = Sums(run_s=sums.run_s, start=sums.start, best=sums.best, waited=sums.waited, skipped=sums.skipped)

    def _lap(self) -> float:
        """Seconds since the previous call, which are also added to those of the run."""
        now = time.monotonic()
        seconds, self._clock = now - self._clock, now
        self._sums.run_s += seconds
        return seconds
