"""The lock of a run directory: one training process at a time."""

import contextlib
import errno
import fcntl
from collections.abc import Iterator

from jaxlm.errors import UserError
from jaxlm.runs.directory import RunDir


@contextlib.contextmanager
def locked(run: RunDir) -> Iterator[None]:
    """Context that holds the lock of an existing run directory; the system releases it when the process ends.

    A finished run that is not writable needs no lock, since nothing in it changes. Raises UserError if another process
    holds the lock.
    """
    try:
        opened = run.lock.open("a")
    except OSError as error:
        if not (error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and run.eval.exists()):
            raise
        yield
        return
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"run_dir {str(run.path)!r} is in use by another process: wait for it, or choose another --run-dir"
            ) from None
        yield
