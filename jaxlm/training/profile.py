"""A profiler's trace of some steps of a training (`profile`), for XProf and Perfetto."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from jaxlm.config import RunConfig
from jaxlm.devices import processes
from jaxlm.errors import UserError
from jaxlm.runs.directory import RunDir
from jaxlm.training.job import Job
from jaxlm.training.state import Chunk, TrainState

RunChunk = Callable[[TrainState, int, int], tuple[TrainState, Chunk]]
"""The type of `Job.run_chunk`: (state, step, K) -> (state after K steps, their metrics)."""


def check_steps(config: RunConfig) -> None:
    """Raise UserError if the run has no step that `profile` asks for."""
    if config.profile_steps is not None and config.profile_steps[0] >= config.last_step:
        raise UserError(f"profile wants steps of the run's {config.last_step:,}, got {config.profile!r}")


@contextlib.contextmanager
def traced(job: Job, run: RunDir, log: Callable[[str], None]) -> Iterator[RunChunk]:
    """Context with the job's `run_chunk`, which also writes a trace of the steps of `config.profile`.

    Chunks must end where those steps begin and end, as Cadence has them.
    """
    if job.config.profile_steps is None or not processes.is_first():
        yield job.run_chunk
        return
    first, last = job.config.profile_steps
    tracing: contextlib.ExitStack | None = None

    def run_chunk(state: TrainState, step: int, K: int) -> tuple[TrainState, Chunk]:
        nonlocal tracing
        if not first <= step < last:
            return job.run_chunk(state, step, K)
        if tracing is None:
            jax.block_until_ready(state)
            tracing = contextlib.ExitStack()
            jax.profiler.start_trace(run.profile, create_perfetto_trace=True)
            tracing.callback(jax.profiler.stop_trace)
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            result = job.run_chunk(state, step, K)
        if step + K >= min(last, job.config.last_step):
            jax.block_until_ready(result)
            tracing.close()
            log(_where(run.profile, first, step + K))
        return result

    try:
        yield run_chunk
    finally:
        if tracing is not None:
            tracing.close()


def _where(directory: Path, first: int, last: int) -> str:
    """The line that names the trace and how it is opened."""
    newest = max(directory.rglob("perfetto_trace.json.gz"), key=lambda path: path.stat().st_mtime)
    return (
        f"profile: a trace of the steps after {first:,} up to {last:,}: open {newest} in https://ui.perfetto.dev, or "
        f"pip install xprof and run: xprof --logdir {directory}"
    )
