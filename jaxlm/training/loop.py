"""The loop: chunks of steps on a fixed grid, with losses, checkpoints and signals at its points."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.checkpoint import CheckpointWriter
from jaxlm.config import RunConfig
from jaxlm.errors import NonFiniteLoss
from jaxlm.metrics import MetricsLog, Progress
from jaxlm.training.signals import Stopped, catch_signals
from jaxlm.training.state import Chunk, TrainState

CHUNK_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
CHUNK_SECONDS, FLOPS_PER_SECOND = 0.5, 2e10
BATCH_TOKENS_OF_A_CHUNK = 2**23


@dataclasses.dataclass(frozen=True)
class Plan:
    """The grid of a run in steps. Cadences are multiples of `chunk`, so a resume meets the same points."""

    steps: int
    chunk: int
    log_every: int
    eval_every: int
    save_every: int

    @classmethod
    def of(cls, config: RunConfig, parameters: int, batch_tokens: int) -> "Plan":
        """The chunk is the largest that takes about half a second at a cautious speed, from sizes alone: the same
        settings give the same grid on every machine. Cadences are rounded up to it.
        """
        assert config.steps is not None
        flops = step_flops(parameters, batch_tokens)
        most = min(CHUNK_SECONDS * FLOPS_PER_SECOND / flops, BATCH_TOKENS_OF_A_CHUNK / batch_tokens, config.steps)
        fitting = [size for size in CHUNK_SIZES if size <= most] or [1]
        even = [size for size in fitting if config.steps % size == 0 and 4 * size >= fitting[-1]]
        chunk = (even or fitting)[-1]
        log_every = _on_grid(config.eval.log_every or config.steps // 100, chunk)
        eval_every = _on_grid(config.eval.every or config.steps // 10, chunk)
        return cls(config.steps, chunk, log_every, eval_every, _on_grid(config.checkpoint.every or eval_every, chunk))

    def at(self, step: int, every: int) -> bool:
        """Whether something that happens every so often happens after this step."""
        return step % every == 0 or step == self.steps


def step_flops(parameters: int, batch_tokens: int) -> float:
    """Operations of a step, roughly: two for each parameter and token forward, four backward."""
    return 6.0 * parameters * batch_tokens


@dataclasses.dataclass
class Tally:
    """What has been summed since the last train line, and the seconds spent; goes with each checkpoint."""

    loss_sum: float = 0.0
    steps: float = 0
    """Of the losses summed; where steps have weights, these."""
    tokens: int = 0
    seconds_at_line: float = 0.0
    seconds: float = 0.0


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


Scores = Callable[[], Mapping[str, Scored]]
"""Waits for each split's score, "dev" among them where there is one."""


class Point(NamedTuple):
    """A point of the grid: what is to be told and kept of it, once its arrays have arrived."""

    step: int
    chunk: Chunk | None
    """The steps that led here; none did to step 0."""
    logs: bool
    scores: Scores | None
    """Waits for the losses of the splits, where they are taken."""
    saved: tuple[TrainState, jax.Array] | None
    """A copy to save, and whether all of its parameters are finite: the next chunk takes the state's own memory."""
    began: float


@dataclasses.dataclass
class Loop:
    """Runs from state.step to plan.steps. Each point is dealt with while the next chunk runs."""

    state: TrainState
    run_chunk: Callable[[TrainState, int], tuple[TrainState, Chunk]]
    """(state, K) to K steps."""
    evaluate: Callable[[Any], Scores]
    """Begins to score some parameters. Called before the first step, every plan.eval_every steps, and at the end."""
    plan: Plan
    log: MetricsLog
    writer: CheckpointWriter
    progress: Progress
    tally: Tally
    """What the checkpoint of the first state holds."""
    loss_fields: Callable[[float], dict[str, Any]]
    """What a train line says of the mean loss beside itself: "unit", "nats_per_token" and "bits_per_byte"."""
    refit: Callable[[Any], Any] | None = None
    """Brings parameters that training leaves alone up to date, before the others are scored and saved: a function of
    the others, so that a resume changes nothing. None: there are none."""
    meanwhile: Callable[[], None] | None = None
    """Called once, when the devices have their first chunk to work on: the place for what the start need not wait for.
    """
    block: bool = False
    """Wait for each computation before the next."""

    def __post_init__(self) -> None:
        self.step = int(self.state.step)
        self.last_saved = self.step or None
        self.point: Point | None = None
        self.began = time.monotonic() - self.tally.seconds
        self.snapshot = jax.jit(_snapshot)

    def run(self) -> TrainState:
        """All steps that are left. Raises NonFiniteLoss at the first loss that is not a number, and Stopped after
        SIGINT or SIGTERM, the state saved.
        """
        with catch_signals() as caught:
            if self.step == 0:
                self._reach(None, evals=True)
            while self.step < self.plan.steps:
                self._advance(caught)
            self._begin_the_rest()
        self._settle()
        self.writer.wait()
        return self.state

    def _advance(self, caught: list[int]) -> None:
        """One chunk; meanwhile the point before it is settled."""
        plan = self.plan
        on_grid = self.step % plan.chunk == 0 and self.step + plan.chunk <= plan.steps
        K = plan.chunk if on_grid else 1
        self.state, chunk = self.run_chunk(self.state, K)
        self._begin_the_rest()
        if self.block:
            jax.block_until_ready(self.state)
        self._settle()
        self.step += K
        self._reach(
            chunk,
            logs=plan.at(self.step, plan.log_every),
            evals=plan.at(self.step, plan.eval_every),
            saves=plan.at(self.step, plan.save_every) or bool(caught),
        )
        if caught:
            self._settle()
            self.writer.wait()
            raise Stopped(caught[0], self.step)

    def _begin_the_rest(self) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            meanwhile()

    def _reach(self, chunk: Chunk | None, *, logs: bool = False, evals: bool = False, saves: bool = False) -> None:
        """Begin what happens at this step."""
        saved = self.snapshot(self.state) if saves or evals else None
        if saved and self.refit:
            saved = saved[0].replace(params=self.refit(saved[0].params)), saved[1]
        scores = self.evaluate(saved[0].params) if saved and evals else None
        self.point = Point(self.step, chunk, logs, scores, saved if saves else None, time.monotonic())
        if self.block:
            self._settle()

    def _settle(self) -> None:
        """Wait for the point, write its lines, and begin its checkpoint."""
        point, self.point = self.point, None
        if point is None:
            return
        if point.chunk:
            self._add_losses(point.chunk, point.step)
        if point.chunk and point.logs:
            self._write_train_line(point.step, float(point.chunk.lr))
        dev_loss = self._write_scores(point, point.scores()) if point.scores else None
        if point.saved and self.last_saved != point.step:
            self._save(point.step, *point.saved, dev_loss)

    def _add_losses(self, chunk: Chunk, step: int) -> None:
        loss_K = np.asarray(chunk.loss_K, np.float64)
        bad_K = np.flatnonzero(~np.isfinite(loss_K))
        if bad_K.size:
            self._fail(f"the loss is {loss_K[bad_K[0]]}", step - len(loss_K) + int(bad_K[0]) + 1)
        if chunk.weight_K is None:
            self.tally.loss_sum += float(loss_K.sum())
            self.tally.steps += len(loss_K)
        else:
            weight_K = np.asarray(chunk.weight_K, np.float64)
            self.tally.loss_sum += float((loss_K * weight_K).sum())
            self.tally.steps += float(weight_K.sum())
        self.tally.tokens += int(np.asarray(chunk.count_K, np.float64).sum())
        self.progress.steps(step, float(loss_K[-1]))

    def _write_train_line(self, step: int, lr: float) -> None:
        tally, now = self.tally, time.monotonic() - self.began
        mean = tally.loss_sum / max(tally.steps, 1)
        self.log.write(
            step=step,
            split="train",
            loss=mean,
            **self.loss_fields(mean),
            tokens_per_s=tally.tokens / max(now - tally.seconds_at_line, 1e-9),
            lr=lr,
            time_s=now,
        )
        self.tally = Tally(seconds_at_line=now)

    def _write_scores(self, point: Point, scores: Mapping[str, Scored]) -> float | None:
        """Write the splits' lines, and give dev's loss. An event of probability 0 is no failure. The speed in a line
        counts from where the score began, and its chunk may have run meanwhile.
        """
        now = time.monotonic()
        for split, score in scores.items():
            if not math.isfinite(score.nats):
                self._fail(f"the {split} loss is {score.nats}", point.step)
            self.log.write(**score.metrics_line(point.step, split, seconds=now - point.began, time_s=now - self.began))
        dev_loss = scores["dev"].loss if "dev" in scores else None
        self.progress.dev(dev_loss)
        return dev_loss

    def _save(self, step: int, copy: TrainState, finite: jax.Array, dev_loss: float | None) -> None:
        if not finite:
            self._fail("a parameter is not a number", step)
        self.tally.seconds = time.monotonic() - self.began
        self.writer.save(
            step,
            copy.params,
            {"step": copy.step, "opt_state": copy.opt_state},
            dev_loss=dev_loss,
            notes={"tally": dataclasses.asdict(self.tally)},
        )
        self.last_saved = step

    def _fail(self, what: str, step: int) -> None:
        self.writer.wait()
        good = (
            "no checkpoint was saved before"
            if self.last_saved is None
            else f"the last good checkpoint is step {self.last_saved}"
        )
        raise NonFiniteLoss(
            f"{what} at step {step} of {self.plan.steps}; {good}; "
            "try a smaller --optim.lr, or --optim.clip 1, in another --run-dir or with --restart"
        )


def _on_grid(every: int, chunk: int) -> int:
    return max(1, math.ceil(every / chunk)) * chunk


def _snapshot(state: TrainState) -> tuple[TrainState, jax.Array]:
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(state.params)]
    return jax.tree.map(jnp.copy, state), jnp.all(jnp.stack(finite))
