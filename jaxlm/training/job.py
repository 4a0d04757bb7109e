"""The whole job: settings to data to model to steps to a finished run directory."""

from collections.abc import Callable
from pathlib import Path

from jaxlm.config import RunConfig
from jaxlm.errors import writing
from jaxlm.runs.claims import claim, fingerprint, hold, is_free, place_of
from jaxlm.runs.directory import RunDir
from jaxlm.training.signals import Stopped
from jaxlm.training.work import Work


def train(
    config: RunConfig, *, restart: bool = False, dry_run: bool = False, log: Callable[[str], None] = print
) -> Path | None:
    """Train what the settings describe, or resume it, or say that it is done. Returns the run directory.

    What a run stands on (REAN's vectors) is trained before it, in a run directory of its own: done, resumed or refused
    as any run. Raises UserError for settings, data or a run directory that cannot be used, before anything is written;
    NonFiniteLoss and Stopped as `Loop.run` does.
    """
    if not dry_run:
        _undo_restart(RunDir(place_of(config)), log)
    return _train(settle_work(config, resumes=not restart), restart=restart, dry_run=dry_run, log=log)


def _train(work: Work, *, restart: bool, dry_run: bool, log: Callable[[str], None]) -> Path | None:
    before = work.before
    if before is not None:
        if not dry_run:
            _check_place(work, restart, log)
        log(f"first the vectors, in {before.config.run_dir}")
        try:
            path = _train(before, restart=restart, dry_run=dry_run, log=log)
        except Stopped as stopped:
            stopped.restart = restart and not is_free(place_of(work.config))
            raise
        if path is not None:
            work.follow(RunDir(path))
    work.introduce(log)
    if dry_run:
        work.describe(log)
        return None
    buffers, start = work.buffers, work.init_from
    with hold(work.config, work.corpus, restart=restart, buffers=buffers, init_from=start, log=log) as (run, state):
        if state == "done":
            log(f"{run.path} is trained already; --restart trains it again")
        else:
            work.train(run, log)
        if run.samples.is_file():
            log(run.samples.read_text("utf-8", errors="replace").rstrip("\n"))
        work.tell_losses(run, log)
        result = run.read_eval()
        log(f"step {result['step']:,} of {result['steps']:,}, {result['train_time_s']:.1f} s, in {run.path}")
    return run.path


def _undo_restart(run: RunDir, log: Callable[[str], None]) -> None:
    """Bring back what a restart set aside that was killed before its first checkpoint: the run that was there may be
    able to go on without what it began from, as the new one is not.
    """
    with writing(run.path):
        if run.replaced.exists():
            with claim(run.path, None, None, log):
                pass


def _check_place(work: Work, restart: bool, log: Callable[[str], None]) -> None:
    """Raise UserError where the run could not follow what is trained before it."""
    place = place_of(work.config)
    if not is_free(place):
        with claim(place, None if restart else fingerprint(work.config, work.corpus), work.config, log):
            pass


def settle_work(config: RunConfig, *, resumes: bool = False) -> Work:
    """Data, model and devices of a run, with the settings filled in that depend on them. Raises UserError.

    One that `resumes` does without its init_from, and without the run of its vectors, once it has begun.
    """
    if config.model.predicts_text:
        from jaxlm.training.language import LanguageWork

        return LanguageWork(config, resumes=resumes)
    from jaxlm.word2vec.training import Word2vecWork

    return Word2vecWork(config, resumes=resumes)
