"""The training of several seeds, from settings to a finished run directory of each."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxlm.config import RunConfig
from jaxlm.devices import platform
from jaxlm.devices.processes import refuse_several
from jaxlm.errors import UserError, writing
from jaxlm.runs import checkpoints
from jaxlm.runs.create import claimed
from jaxlm.runs.directory import RunDir, write_json
from jaxlm.training import finish
from jaxlm.training.loop import fit
from jaxlm.training.seeds.job import SeedsJob, prepare
from jaxlm.training.seeds.records import DEV_LOSSES, SUMS, SeedsRecorder, SeedsWriter, best_steps
from jaxlm.training.state import TrainState


def train(
    config: RunConfig, *, restart: bool = False, dry_run: bool = False, log: Callable[[str], None] = print
) -> Path | None:
    """Train config.seeds runs in one program, or resume them, or report that they are done. Returns the run directory.

    It has settings, metrics (means over the seeds) and checkpoints of all seeds together, and for each seed an ordinary
    run directory seed-N, which is complete once the training has ended. Raises as `jaxlm.train` does.
    """
    refuse_several(config, f"a training of {config.seeds} seeds, which share one program")
    job = prepare(config, restart=restart, dry_run=dry_run, log=log)
    for line in job.opening(dry_run=dry_run):
        log(line)
    if dry_run:
        return None
    with claimed(job.config, job.data, init_from=job.init_hash, restart=restart, log=log) as (run, state):
        if state == "done":
            log(f"{run.path} is trained already; --restart trains it again")
        else:
            with contextlib.ExitStack() as stack:
                for one in job.jobs:
                    stack.enter_context(claimed(one.config, one.data, init_from=one.init_hash, log=log))
                seconds = fit(job, run, log, recorder=SeedsRecorder, writer_of=SeedsWriter)
                with writing(run.path):
                    finish_seeds(job, run, seconds, log)
            with writing(run.path):
                write_json(run.eval, job.finish(run, seconds))
        for line in (
            *job.losses({}, run),
            f"{config.seeds} runs in {run.path}: {job.runs[0].path.name} to "
            f"{job.runs[-1].path.name}, {run.read_eval()['train_time_s']:.1f} s",
        ):
            log(line)
    return run.path


def finish_seeds(job: SeedsJob, run: RunDir, seconds: float, log: Callable[[str], None]) -> None:
    """Give each seed its best and its newest checkpoint, and its eval.json and samples last.

    A seed that has its eval.json is finished.
    """
    left = [n for n, own in enumerate(job.runs) if not own.eval.exists()]
    write_checkpoints(job, run, left)
    counted: dict[str, Any] | None = None
    for n in left:
        one, own = job.jobs[n], job.runs[n]
        result = finish.finish(one.setup, own, seconds, log, counted)
        counted = result["baselines"]
        write_json(own.eval, result)


def write_checkpoints(job: SeedsJob, run: RunDir, seeds: list[int]) -> None:
    """Write the best and the newest checkpoint of some of the seeds, numbered from 0, out of those of all together.

    Raises UserError where one of the group's cannot be read.
    """
    found = {one.step: one for one in checkpoints.saved(run.checkpoints)}
    best = best_steps({step: one.metadata.get(DEV_LOSSES) for step, one in found.items()})
    newest, keep = max(found), job.config.checkpoint.keep
    for step in sorted({newest, *(best[n] for n in seeds if best)}):
        wanted = [n for n in seeds if step == newest or (best and best[n] == step)]
        if not wanted:
            continue
        items = checkpoints.load(run.checkpoints, found[step], job.abstract_state().items())
        if items is None:
            raise UserError(
                f"checkpoint {step} of {str(run.path)!r} is broken, which is the best of a seed: delete the directory "
                f"{str(run.checkpoints / str(step))!r} and run the same command again"
            )
        state, metadata = TrainState.of_items(items), found[step].metadata
        for n in wanted:
            losses = metadata.get(DEV_LOSSES)
            own = {"chunk": metadata["chunk"], "evaluates": False, "numerics": platform.numerics()}
            with checkpoints.CheckpointWriter(job.runs[n].checkpoints, keep) as writer:
                writer.save(
                    step,
                    job.state_of_seed(state, n).items(),
                    dev_loss=None if losses is None else losses[n],
                    metadata={**own, "sums": metadata[SUMS][n]},
                )
