"""The loop: chunks of steps on a fixed grid, with losses, checkpoints and signals at its points."""

import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.devices import platform
from jaxlm.errors import NonFiniteLoss
from jaxlm.runs.checkpoints import CheckpointWriter
from jaxlm.runs.metrics import MetricsLog, Progress
from jaxlm.training.background import background_thread
from jaxlm.training.plan import Plan
from jaxlm.training.points import Best, Point, Scored, Scores, Tally
from jaxlm.training.signals import Stopped, catch_signals
from jaxlm.training.state import Chunk, TrainState

AHEAD = 2
"""Chunks that wait for the one that runs: while others hold the interpreter, none can be begun."""

COPIES, COPIED_BYTES = 6, 2**26
"""Copies of the state that may wait to be scored and saved, and their bytes together (one may be larger), until the
first save has ended: for the first scores a program is compiled, for the first save Orbax is imported, and a small
model is through tens of chunks meanwhile. Later one may wait, since a kill loses what waits.
"""

T = TypeVar("T")


@dataclasses.dataclass
class Loop:
    """Runs from state.step to plan.steps. A point is told while the chunks after it run, as soon as its scores are
    there and the save before its own has ended, but before the next scores or save are begun; while the first are
    waited for, COPIES points may have begun theirs.
    """

    state: TrainState
    run_chunk: Callable[[TrainState, int, int], tuple[TrainState, Chunk]]
    """(state, its step, K) to K steps."""
    evaluate: Callable[[Any], Mapping[str, Scored]]
    """Scores some parameters: those before the first step, after every plan.eval_every steps, and at the end."""
    plan: Plan
    log: MetricsLog
    writer: CheckpointWriter
    progress: Progress
    tally: Tally
    """What the checkpoint of the first state holds."""
    loss_fields: Callable[[float], dict[str, Any]]
    """What a train line says of the mean loss beside itself: "unit", "nats_per_token" and "bits_per_byte"."""
    calibrate: Callable[[Any], Any] | None = None
    """Brings parameters that training leaves alone up to date, before the others are scored and saved: a function of
    the others, so that a resume changes nothing. None: there are none."""
    meanwhile: Callable[[], None] | None = None
    """Called once, when the chunk that runs and those that may wait are begun, or there are no more: the place for what
    the start need not wait for."""
    when_told: Callable[[Best | None], None] | None = None
    """Called with `best` when all losses are written; the last save may still go on. A signal ends it as it
    ends whatever follows the training.
    """
    beside: bool = False
    """Score in a thread: what one thread asks of a CPU is done in order, and the next chunk would wait for the scores.
    Not where there are several devices, which must all meet their programs in one order."""
    block: bool = False
    """Wait for each computation before the next."""

    def __post_init__(self) -> None:
        self.step = int(self.state.step)
        self.last_saved = self.step or None
        self.best: Best | None = None
        """The last step's parameters, once they are being saved, if they are the best; None: those are on disk."""
        self.running: deque[Point] = deque()
        self.ended: deque[Point] = deque()
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(self.state))
        self.room = max(1, min(COPIES, COPIED_BYTES // max(size, 1)))
        self.chunks_begun = self.saves_begun = 0
        self.thread = background_thread("scores")
        self.newest_end = time.monotonic(), self.step
        """When the newest of `ended` ended, and its step."""
        self.began = self.newest_end[0] - self.tally.seconds
        self.seconds = self.tally.seconds_at_line
        """When the steps had ended that were told last, over all sittings."""

    def run(self) -> TrainState:
        """All steps that are left. Raises NonFiniteLoss at the first loss that is not a number, and Stopped after
        SIGINT or SIGTERM, the state saved.
        """
        with self.thread, catch_signals() as caught:
            if self.step == 0:
                self._reach(None, evals=True)
            while self.step < self.plan.steps:
                self._advance(caught)
            self._begin_the_rest()
            self._settle()
            self._stop_if(caught)
        if self.when_told:
            self.when_told(self.best)
        with catch_signals() as caught:
            self.writer.wait()
        self._stop_if(caught)
        return self.state

    def _advance(self, caught: list[int]) -> None:
        """One chunk; meanwhile points before it are told."""
        plan = self.plan
        on_grid = self.step % plan.chunk == 0 and self.step + plan.chunk <= plan.steps
        K = plan.chunk if on_grid else 1
        self.state, chunk = self.run_chunk(self.state, self.step, K)
        self.chunks_begun += 1
        if self.chunks_begun > AHEAD:
            self._begin_the_rest()
        self.step += K
        self._reach(
            chunk,
            logs=plan.at(self.step, plan.log_every),
            evals=plan.at(self.step, plan.eval_every),
            saves=plan.at(self.step, plan.save_every),
        )
        if caught:
            self._reach(None, saves=True)
            self._settle()
            self._stop_if(caught)

    def _stop_if(self, caught: list[int]) -> None:
        """Raise Stopped after a signal, once the state of this step is on disk."""
        if caught:
            self.writer.wait()
            raise Stopped(caught[0], self.step)

    def _begin_the_rest(self) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            meanwhile()

    def _reach(self, chunk: Chunk | None, *, logs: bool = False, evals: bool = False, saves: bool = False) -> None:
        """Begin what happens at this step, and tell what can be told."""
        if self.block:
            jax.block_until_ready(self.state)
        scores = saved = None
        if saves or evals:
            while sum(point.has_copy for point in (*self.ended, *self.running)) >= self.room:
                self._tell_next()
            copy = _copy(self.state)
            if self.calibrate:
                copy = dataclasses.replace(copy, params=self.calibrate(copy.params))
            scores = self._begin(self._score, copy.params) if evals else None
            saved = (copy, self._begin(_all_finite, copy.params)) if saves else None
        self.running.append(Point(self.step, chunk, logs, scores, saved))
        while self.running and (len(self.running) > AHEAD or _has_arrived(self.running[0].chunk)):
            self._end_next()
        while self.ended and self._is_ready(self.ended[0]):
            self._tell_next()

    def _begin(self, work: Callable[[Any], T], params: Any) -> Future[T]:
        """Begin some work on a copy of the parameters, or do it."""
        if self.beside:
            return self.thread.submit(work, params)
        done: Future[T] = Future()
        done.set_result(work(params))
        return done

    def _score(self, params: Any) -> Scores:
        began = time.monotonic()
        return Scores(self.evaluate(params), time.monotonic() - began)

    def _settle(self) -> None:
        """Tell all points, and wait for what they wait for."""
        while self.ended or self.running:
            self._tell_next()

    def _end_next(self) -> None:
        """Wait for the steps that lead to the first point whose steps are not known to have ended. Where those of the
        next have ended too, unseen, their steps share the time evenly.
        """
        points = [self.running.popleft()]
        jax.block_until_ready(points[0].chunk)
        while self.running and _has_arrived(self.running[0].chunk):
            points.append(self.running.popleft())
        (began, first), (now, last) = self.newest_end, (time.monotonic(), points[-1].step)
        shares = ((point.step - first) / (last - first) if last > first else 1.0 for point in points)
        self.ended += [
            point._replace(ended=began + (now - began) * share) for point, share in zip(points, shares, strict=True)
        ]
        self.newest_end = now, last

    def _is_ready(self, point: Point) -> bool:
        scored = not point.scores or point.scores.done()
        return scored and (not point.saved or (point.saved[1].done() and self.writer.is_idle))

    def _tell_next(self) -> None:
        """Write a point's lines, with the time when its steps had ended, and begin its checkpoint."""
        if not self.ended:
            self._end_next()
        point = self.ended.popleft()
        assert point.ended is not None
        time_s = self.seconds = point.ended - self.began
        newest = self._add_losses(point.chunk, point.step) if point.chunk else None
        if point.chunk and point.logs:
            self._write_train_line(point.step, float(point.chunk.lr), time_s)
        scores = self._write_scores(point.step, point.scores.result(), time_s) if point.scores else {}
        if newest:
            self.progress.steps(point.step, *newest)
        if point.saved and self.last_saved != point.step:
            copy, finite = point.saved
            self._save(point.step, copy, finite.result(), scores)

    def _add_losses(self, chunk: Chunk, step: int) -> tuple[float | None, int]:
        """Add a chunk's losses to the tally; the newest of them, and how many tokens were read."""
        loss_K = np.asarray(chunk.loss_K, np.float64)
        bad_K = np.flatnonzero(~np.isfinite(loss_K))
        if bad_K.size:
            self._fail(f"the loss is {loss_K[bad_K[0]]}", step - len(loss_K) + int(bad_K[0]) + 1)
        told_K = loss_K
        if chunk.weight_K is None:
            self.tally.loss_sum += float(loss_K.sum())
            self.tally.steps += len(loss_K)
        else:
            weight_K = np.asarray(chunk.weight_K, np.float64)
            self.tally.loss_sum += float((loss_K * weight_K).sum())
            self.tally.steps += float(weight_K.sum())
            told_K = loss_K[weight_K > 0]
        tokens = int(np.asarray(chunk.count_K, np.float64).sum())
        self.tally.tokens += tokens
        return float(told_K[-1]) if told_K.size else None, tokens

    def _write_train_line(self, step: int, lr: float, time_s: float) -> None:
        tally = self.tally
        mean = tally.loss_sum / tally.steps if tally.steps else math.nan
        self.log.write(
            step=step,
            split="train",
            loss=mean,
            **self.loss_fields(mean),
            tokens_per_s=tally.tokens / max(time_s - tally.seconds_at_line, 1e-9),
            lr=lr,
            time_s=time_s,
        )
        self.tally = Tally(seconds_at_line=time_s)

    def _write_scores(self, step: int, scores: Scores, time_s: float) -> Mapping[str, Scored]:
        """Write the splits' lines, and give their scores. An event of probability 0 is no failure. The speed in a line
        is that of all scores together, and chunks may have run meanwhile.
        """
        for split, score in scores.splits.items():
            if not math.isfinite(score.nats):
                self._fail(f"the {split} loss is {score.nats}", step)
            self.log.write(**score.metrics_line(step, split, seconds=scores.seconds, time_s=time_s))
        self.progress.dev(_dev_loss(scores.splits))
        return scores.splits

    def _save(self, step: int, copy: TrainState, finite: bool, scores: Mapping[str, Scored]) -> None:
        if not finite:
            self._fail("a parameter is not a number", step)
        self.tally.seconds = time.monotonic() - self.began
        self.writer.save(
            step,
            copy.params,
            {"step": copy.step, "opt_state": copy.opt_state},
            dev_loss=_dev_loss(scores),
            notes={"tally": dataclasses.asdict(self.tally), "numerics": platform.numerics()},
        )
        self.last_saved = step
        self.saves_begun += 1
        if self.saves_begun == 2:  # which is when the first has ended
            self.room = 1
        if step == self.plan.steps == self.writer.best_step:
            self.best = Best(copy.params, scores)

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


def _dev_loss(scores: Mapping[str, Scored]) -> float | None:
    return scores["dev"].loss if "dev" in scores else None


def _copy(state: TrainState) -> TrainState:
    """Copies of the arrays, without a program to compile."""
    return jax.device_put(state, jax.tree.map(lambda x: x.sharding, state), may_alias=False)


def _has_arrived(tree: Any) -> bool:
    return all(leaf.is_ready() for leaf in jax.tree.leaves(tree) if hasattr(leaf, "is_ready"))


def _all_finite(params: Any) -> bool:
    if jax.default_backend() == "cpu":  # where NumPy reads them, with no program to compile
        return all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(params))
    return bool(_finite(params))


@jax.jit
def _finite(params: Any) -> jax.Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params)]))
