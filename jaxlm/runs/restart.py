"""A restart: the run that was there stays in .replaced/ until the new one has a checkpoint of its own.

The process may end between any two steps of this. While .replaced/ has no fingerprint, an old run is on its way in or
out, and what is in there goes back. Where it has one, the old run is in there whole, and beside it are the new one's
files.
"""

import contextlib
import shutil
import time
from pathlib import Path

from jaxlm.runs.directory import RunDir, write_bytes


def set_aside(run: RunDir) -> None:
    """Make room for a new run, where there is anything. The fingerprint stays as well: without, it were no run."""
    if not any(path.exists() for path in run.contents):
        return
    run.replaced.mkdir(exist_ok=True)
    for path in run.contents:
        if path.exists():
            path.rename(run.replaced / path.name)
    write_bytes(run.replaced / run.fingerprint.name, run.fingerprint.read_bytes())


def settle(run: RunDir) -> bool:
    """Throw the old run away where the new one has a checkpoint, or bring it back; whether it was brought back."""
    shutil.rmtree(run.discarded, ignore_errors=True)
    fingerprint = run.replaced / run.fingerprint.name
    if fingerprint.exists():
        if run.has_checkpoint:
            throw_away(run)
            return False
        for path in run.contents:
            _remove(path)
        fingerprint.replace(run.fingerprint)
    waiting = [path for path in run.contents if (run.replaced / path.name).exists()]
    for path in waiting:
        (run.replaced / path.name).rename(path)
    _remove(run.replaced / f"{run.fingerprint.name}.part")
    with contextlib.suppress(OSError):  # it was not there
        run.replaced.rmdir()
    return bool(waiting)


def throw_away(run: RunDir) -> None:
    """Delete the old run, whole to whoever looks meanwhile, or gone."""
    if run.replaced.exists():
        run.discarded.mkdir(exist_ok=True)  # there may be something in it that cannot be deleted
        run.replaced.rename(run.discarded / str(time.time_ns()))
        shutil.rmtree(run.discarded, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
