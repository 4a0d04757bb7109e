"""A whole training, from settings to a finished run directory."""

from collections.abc import Callable
from pathlib import Path

from jaxlm.config import RunConfig
from jaxlm.devices import processes
from jaxlm.errors import writing
from jaxlm.runs import metrics
from jaxlm.runs.create import claimed
from jaxlm.runs.directory import RunDir, write_json
from jaxlm.runs.fingerprint import data_hashes
from jaxlm.training import summary
from jaxlm.training.job import Job
from jaxlm.training.loop import fit
from jaxlm.training.profile import check_steps
from jaxlm.training.seeds.run import train as train_seeds


def train(
    config: RunConfig, *, restart: bool = False, dry_run: bool = False, log: Callable[[str], None] = print
) -> Path | None:
    """Train the model that the settings describe, or resume it, or report that it is done. Returns the run directory.

    Several processes that call this train one run together; the first of them logs and writes (see docs/scale.md).
    `restart` renames an old run and begins anew; `dry_run` logs the resolved settings and sizes, and trains nothing.
    Raises UserError for settings, data or a run directory that cannot be used, before anything is written, and
    NonFiniteLoss and Stopped as `fit` does.
    """
    if config.seeds > 1:
        return train_seeds(config, restart=restart, dry_run=dry_run, log=log)
    with processes.joined(config, restart=restart, dry_run=dry_run):
        log = log if processes.is_first() else silent
        job = config.model.prepare(config, restart=restart, dry_run=dry_run, log=log)
        check_steps(job.config)
        processes.check_same(data_hashes(job.data, job.buffers, job.init_hash), config)
        for line in job.opening(dry_run=dry_run):
            log(line)
        if dry_run:
            return None
        with claimed(job.config, job.data, buffers=job.buffers, init_from=job.init_hash, restart=restart, log=log) as (
            run,
            state,
        ):
            if state == "done":
                log(f"{run.path} is trained already; --restart trains it again")
            else:
                seconds = fit(job, run, log)
                with writing(run.path):
                    result = job.finish(run, seconds)
                    if processes.is_first():
                        write_json(run.eval, result)
            for line in _summary(job, run) if processes.is_first() else ():
                log(line)
        return run.path


def silent(line: str) -> None:
    """Drop a line: the log of a process that is not the first."""


def _summary(job: Job, run: RunDir) -> list[str]:
    """The screen about a finished run, from its files. Raises UserError if one of them is damaged."""
    result = run.read_eval()
    rows = summary.screen(
        job.config,
        result,
        metrics.read(run.metrics),
        data=[line for line in job.summary() if line.startswith("data: ")],
        losses=job.losses(result, run),
        samples=run.samples.read_text("utf-8", errors="replace") if run.samples.is_file() else "",
    )
    end = f"step {result['step']:,} of {result['steps']:,}, {result['train_time_s']:.1f} s, in {run.path}"
    return [*rows, end]
