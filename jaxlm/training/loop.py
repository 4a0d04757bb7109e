"""The loop of every training: chunks of steps, with logs, evaluations and checkpoints between them."""

import contextlib
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxlm.devices import platform, processes
from jaxlm.errors import Stopped, UserError
from jaxlm.inference.evaluation import Interrupted, Stop
from jaxlm.models.base import Params
from jaxlm.runs import checkpoints
from jaxlm.runs.directory import RunDir
from jaxlm.training.job import Job, SplitScore
from jaxlm.training.profile import traced
from jaxlm.training.recorder import Recorder, Sums
from jaxlm.training.signals import catch_signals
from jaxlm.training.state import TrainState


def fit(
    job: Job,
    run: RunDir,
    log: Callable[[str], None],
    *,
    recorder: type[Recorder] = Recorder,
    writer_of: type[checkpoints.CheckpointWriter] = checkpoints.CheckpointWriter,
) -> float:
    """Train from the newest checkpoint, or from step 0, to the last step; returns the seconds of the whole run.

    A signal, in any of several processes, also ends an evaluation, which is made again when the run resumes. Training
    ends early where the dev loss has not fallen for eval.patience evaluations. Raises NonFiniteLoss if a loss or
    parameter is not finite or the loss far above its start, Stopped after SIGINT or SIGTERM with the state saved, and
    UserError if a file cannot be written.
    """
    state, sums, chunk, evaluates = resumed(job, run, log) or (job.initial_state(), Sums(), None, True)
    step, cadence = int(state.step), job.cadence(chunk)
    saves = step > 0
    with (
        catch_signals() as caught,
        writer_of(run.checkpoints, job.config.checkpoint.keep) as writer,
        recorder(job, run, steps=cadence.steps, step=step, sums=sums, log=log) as record,
        traced(job, run, log) as run_chunk,
    ):
        stops = processes.agreed(caught)
        while evaluates or not (step == cadence.steps or record.out_of_patience):
            if not evaluates:
                K = cadence.size_at(step)
                state, metrics = run_chunk(state, step, K)
                step += K
                record.chunk(step, metrics, logs=cadence.logs(step))
                evaluates, saves = cadence.evaluates(step), cadence.saves(step) or stops()
            if step and (evaluates or saves):
                record.flush()
                average = None if state.ema is None else job.calibrate(state.ema)
                state = dataclasses.replace(state, params=job.calibrate(state.params), ema=average)
            dev_loss = None
            if evaluates:
                with contextlib.suppress(Interrupted):
                    dev_loss = record.scores(step, evaluated(job, state, stops))
                    evaluates = False
                saves = saves or stops() or record.out_of_patience
            if step and saves:
                if not all_finite(state.params):
                    record.fail(f"a parameter{job.where_not_finite(state.params)} is not a number", step)
                if not (cadence.saves(step) or record.out_of_patience):
                    dev_loss = None  # not among the checkpoints of which an uninterrupted run takes the best
                metadata = {"chunk": cadence.chunk, "evaluates": evaluates, "numerics": platform.numerics()}
                writer.save(step, state.items(), dev_loss=dev_loss, metadata={**metadata, **record.metadata()})
                record.last_saved = step
            if saves and stops():
                break
        writer.wait()
        if stops():
            raise Stopped(caught[0], step)
        if step < cadence.steps:
            log(
                f"stopped at step {step:,} of {cadence.steps:,}: the dev loss has not fallen for "
                f"{job.config.eval.patience} evaluations (eval.patience)"
            )
        return record.seconds


def evaluated(job: Job, state: TrainState, stop: Stop) -> dict[str, SplitScore]:
    """Evaluate the splits that are followed: with the average of parameters where there is one, and then with the
    parameters themselves too, as "dev_raw" and so on.

    Raises Interrupted as the job's `evaluate` does.
    """
    scores = dict(job.evaluate(state.kept, stop))
    if state.ema is None:
        return scores
    return scores | {f"{split}_raw": score for split, score in job.evaluate(state.params, stop).items()}


def resumed(job: Job, run: RunDir, log: Callable[[str], None]) -> tuple[TrainState, Sums, int, bool] | None:
    """Load the newest intact checkpoint: its state, running sums and steps of a chunk, and True if the run was stopped
    in the evaluation of that state. Broken checkpoints are set aside.

    Returns None if there is no checkpoint. Raises UserError if there is none and init_from is gone.
    """
    like = job.abstract_state()
    if like is None:
        return None
    broken = processes.from_first(lambda: checkpoints.set_aside_unreadable(run.checkpoints))
    found: tuple[TrainState, Sums, int, bool] | None = None
    for one in reversed(checkpoints.seen_by_first(run.checkpoints)):
        items = checkpoints.load(run.checkpoints, one, like.items())
        sums, chunk = Sums.from_metadata(one.metadata), one.metadata.get("chunk")
        if items is not None and sums is not None and isinstance(chunk, int):
            found = TrainState.of_items(items), sums, chunk, bool(one.metadata.get("evaluates"))
            break
        processes.from_first(partial(checkpoints.set_aside, run.checkpoints, one.step))
        broken.append(one.step)
    for step in broken:
        log(f"checkpoint {step} of {run.path} is broken: moved to {run.broken}, resuming without it")
    if found is None:
        if not job.may_begin:
            raise UserError(
                f"init_from {job.config.init_from!r} cannot be opened, and no checkpoint of run {str(run.path)!r} can "
                "be read: put it back, or choose another with --restart"
            )
        if run.metrics.exists():
            log(f"{run.path} was stopped before its first checkpoint, or has lost them: training begins at step 0")
        return None
    log(f"resuming {run.path} at step {one.step}")
    changed = _changed_numerics(one.metadata.get("numerics"))
    if changed and one.step < job.config.last_step:
        log(f"trained with {', '.join(changed)}: what follows may not be bit for bit what it would have been")
    return found


def all_finite(params: Params) -> bool:
    """True if every number of every parameter is finite."""
    return bool(_all_finite(params))


@jax.jit
def _all_finite(params: Params) -> jax.Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params)]))


def _changed_numerics(then: Any) -> list[str]:
    """List the conditions on which numbers depend (platform.numerics) that have changed since a checkpoint."""
    now = platform.numerics()
    then = now | then if isinstance(then, dict) else now
    return [f"{name} {then[name]} (now {value})" for name, value in now.items() if then[name] != value]
