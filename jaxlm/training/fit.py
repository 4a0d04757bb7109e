"""Steps to a run's last checkpoint, whatever the model: a state, what moves it on, and what scores it."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from jaxlm.config import RunConfig
from jaxlm.devices import platform
from jaxlm.errors import UserError
from jaxlm.runs import checkpoints, metrics
from jaxlm.runs.directory import RunDir
from jaxlm.runs.restart import throw_away
from jaxlm.training.loop import Loop
from jaxlm.training.plan import Plan
from jaxlm.training.points import Best, Scored, Tally
from jaxlm.training.state import Chunk, TrainState


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained. The functions are those of Loop."""

    config: RunConfig
    state: TrainState
    """Before the first step."""
    plan: Plan
    run_chunk: Callable[[TrainState, int, int], tuple[TrainState, Chunk]]
    evaluate: Callable[[Any], Mapping[str, Scored]]
    loss_fields: Callable[[float], dict[str, Any]]
    calibrate: Callable[[Any], Any] | None = None
    beside: bool = False
    block: bool = False
    may_begin: bool = True
    """False where `state` has the shapes alone, since what init_from names is gone: only a checkpoint will do."""


def fit(
    task: Task,
    run: RunDir,
    log: Callable[[str], None],
    *,
    meanwhile: Callable[[], None] = lambda: None,
    when_told: Callable[[Best | None], None] | None = None,
) -> float:
    """Train from the newest checkpoint, or from the start, to the last step; how long that took in all, in seconds.

    `meanwhile` is called once the first steps are under way, or there are none; `when_told` once all losses are
    written, with the parameters of the last step if they are the best and this sitting saves them, else with None.

    Raises NonFiniteLoss and Stopped as `Loop.run` does.
    """
    state, tally = _resume(run, task, log)
    step = int(state.step)
    keep, forget_old = task.config.checkpoint.keep, partial(throw_away, run)
    with checkpoints.CheckpointWriter(run.checkpoints, keep, when_saved=forget_old) as writer:
        metrics.cut(run.metrics, step if step else -1)
        metrics_log = metrics.MetricsLog(run.metrics, run.tensorboard if task.config.tensorboard else None)
        progress = metrics.Progress(task.plan.steps, step, words=not task.config.model.predicts_text)

        def begin_the_rest() -> None:
            meanwhile()  # first: while Orbax is imported, the interpreter is seldom free
            writer.open()

        loop = Loop(
            state=state,
            run_chunk=task.run_chunk,
            evaluate=task.evaluate,
            plan=task.plan,
            log=metrics_log,
            writer=writer,
            progress=progress,
            tally=tally,
            loss_fields=task.loss_fields,
            calibrate=task.calibrate,
            meanwhile=begin_the_rest,
            when_told=when_told,
            beside=task.beside,
            block=task.block,
        )
        try:
            loop.run()
        finally:
            progress.close()
            metrics_log.close()
    return loop.seconds


def _resume(run: RunDir, task: Task, log: Callable[[str], None]) -> tuple[TrainState, Tally]:
    """The newest checkpoint that loads, or the initial state; what is broken is set aside and told."""
    state = task.state
    like = checkpoints.abstract_like(
        {"params": state.params, "training": {"step": state.step, "opt_state": state.opt_state}}
    )
    broken = checkpoints.set_aside_unreadable(run.checkpoints)
    resumed: tuple[TrainState, Tally] | None = None
    numerics: Any = None
    for one in reversed(checkpoints.saved(run.checkpoints)):
        loaded = checkpoints.load(run.checkpoints, one, like)
        tally, numerics = Tally.from_notes(one.notes), one.notes.get("numerics")
        if loaded is not None and tally is not None:
            resumed = TrainState(params=loaded["params"], **loaded["training"]), tally
            break
        checkpoints.set_aside(run.checkpoints, one.step)
        broken.append(one.step)
    for step in broken:
        log(f"checkpoint {step} of {run.path} is broken: moved to {run.broken}, going on without it")
    if resumed is None:
        if not task.may_begin:
            raise UserError(
                f"init_from {task.config.init_from!r} cannot be opened, and no checkpoint of run {str(run.path)!r} can "
                "be read: put it back, or choose another with --restart"
            )
        if run.metrics.exists():
            log(f"{run.path} was stopped before its first checkpoint, or has lost them: training begins at step 0")
        return state, Tally()
    step = int(resumed[0].step)
    log(f"resuming {run.path} at step {step}")
    changed = _changed_numerics(numerics)
    if changed and step < task.plan.steps:
        log(f"trained with {', '.join(changed)}: what follows may not be bit for bit what it would have been")
    return resumed


def _changed_numerics(then: Any) -> list[str]:
    """What of `sharding.numerics` is not what it was when a checkpoint's notes were made."""
    now = platform.numerics()
    then = now | then if isinstance(then, dict) else now
    return [f"{name} {then[name]} (now {value})" for name, value in now.items() if then[name] != value]
