"""A file system that several hosts share, on which one host may see later what another has written."""

import errno
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

from jaxlm.devices import processes
from jaxlm.errors import UserError
from jaxlm.runs.directory import RunDir

SHARED = 10.0
"""Seconds after which another host sees what was written into a shared file system."""
RETRY = 0.1
"""Seconds between looks."""


def mark(run: RunDir) -> Path | None:
    """Write an empty file of a name that no other directory has, by which `check_shared` knows this one.

    None where this process is alone, and for a finished run that is not writable.
    """
    if processes.count() == 1:
        return None
    path = run.path / f".{secrets.token_hex(8)}"
    try:
        path.touch()
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and run.eval.exists():
            return None
        raise
    return path


def check_shared(run: RunDir, marked: Path | None) -> None:
    """Remove the mark once every process has seen it.

    Raises UserError, in all of them, naming run_dir and the processes that do not see it after SHARED seconds.
    """
    sees = processes.is_first() or _appear([run.fingerprint, *([marked] if marked else [])])
    try:
        processes.check_all(
            sees,
            lambda blind: (
                f"run_dir {str(run.path)!r} wants a file system that all hosts share: process 0 has written into it, "
                f"but {blind} sees nothing of it after {SHARED:g} s; take a --run-dir on a shared disk"
            ),
        )
    finally:
        if marked is not None and processes.is_first():
            marked.unlink(missing_ok=True)


def wait_to_see(run_dir: Path, paths: Iterable[Path]) -> None:
    """Wait until this process sees files of a run that the first of several processes has seen.

    Raises UserError, naming run_dir, after SHARED seconds.
    """
    if not (processes.is_first() or _appear(paths)):
        raise UserError(
            f"run_dir {str(run_dir)!r} wants a file system on which all hosts see the same files: process 0 sees some "
            f"of its checkpoints that process {processes.index()} does not see after {SHARED:g} s; try again"
        )


def _appear(paths: Iterable[Path]) -> bool:
    """True as soon as all paths exist; False after SHARED seconds."""
    until = time.monotonic() + SHARED
    for path in paths:
        while not path.exists():
            if time.monotonic() > until:
                return False
            time.sleep(RETRY)
    return True
