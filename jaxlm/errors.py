"""Exceptions with an exit code of their own at the command line, and error messages for files, settings and disks."""

import contextlib
import difflib
import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class UserError(ValueError):
    """A setting, file or argument that cannot be used as given.

    The message is one line: the setting, what it wanted, what it got, and the fix when there is one.
    The command line prints it without a traceback and exits with code 2.
    """


class Stopped(Exception):
    """Training was stopped by a signal, after saving its state at `step`; the command line exits with 128 + signum."""

    def __init__(self, signum: int, step: int):
        super().__init__(f"stopped by {signal.Signals(signum).name} at step {step}")
        self.signum, self.step = signum, step


class NonFiniteLoss(Exception):
    """Training produced a loss that is not a number, or far above its start; the command line exits with code 3."""


REFUSED_PATHS = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EROFS)
"""Errors of the system about a path that it cannot follow or may not change, whatever the operation."""


def is_out_of_memory(error: BaseException) -> bool:
    """True if the machine, or a device by what XLA says, has no memory for what was asked."""
    return isinstance(error, MemoryError) or (
        type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError") and "RESOURCE_EXHAUSTED" in str(error)
    )


def is_refused(error: BaseException) -> bool:
    """True for an error of the user's making, or the machine's, with which the command line exits with code 2."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOSPC or (error.filename is not None and error.errno in REFUSED_PATHS)
    return isinstance(error, UserError) or is_out_of_memory(error)


def one_line(text: str) -> str:
    """Replace every run of white space in a text by one space."""
    return " ".join(text.split())


def near_path(path: Path) -> str:
    """A hint " (did you mean ...?)" with the sibling file whose name is closest, or ""."""
    try:
        siblings = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, siblings, n=1)
    return f" (did you mean {str(path.parent / near[0])!r}?)" if near and near[0] != path.name else ""


@contextlib.contextmanager
def reading(path: Path, what: str, wanted: str = "a text file") -> Iterator[None]:
    """Context for reading a file: an OSError becomes a UserError with `what` the file is, its path and the reason."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{what} {str(path)!r} does not exist{near_path(path)}") from None
    except IsADirectoryError:
        raise UserError(f"{what} wants {wanted}, got the directory {str(path)!r}") from None
    except OSError as error:
        raise UserError(f"{what} {str(path)!r} cannot be read: {error.strerror or error}") from error


def check_folder(option: str, folder: Path) -> None:
    """Raise UserError if an option's files could not be written into a folder, which need not exist yet."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise UserError(f"{option} wants a place in a directory, got {str(folder)!r}: {str(there)!r} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{option} wants a place that may be written to, got {str(folder)!r}")


@contextlib.contextmanager
def naming(setting: str) -> Iterator[None]:
    """Context for using a setting: the message of a UserError is prefixed with the setting's name."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{setting}: {error}") from error


def check_fields(tree: Any, **kinds: tuple[type, ...]) -> None:
    """Raise ValueError if a field of a JSON object is missing or has none of the given types."""
    for name, kind in kinds.items():
        if name not in tree:
            raise ValueError(f"{name} is missing")
        if not isinstance(tree[name], kind):
            wanted = " or ".join(one.__name__ for one in kind)
            raise ValueError(f"{name} wants {wanted}, got {type(tree[name]).__name__}")


def disk_reason(error: BaseException) -> str | None:
    """The system's reason if an error, or one of its causes, is a full or failing disk; None otherwise."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EFBIG,
            errno.EROFS,
            errno.EIO,
        ):
            return seen.strerror or str(seen)
        for text in ("No space left on device", "Disk quota exceeded", "File too large", "Read-only file system"):
            if text in str(seen):
                return text
        seen = seen.__cause__ or seen.__context__
    return None


@contextlib.contextmanager
def writing(run_dir: Path) -> Iterator[None]:
    """Context for writing files of a run directory: an OSError there becomes a UserError with its reason.

    An error about another file passes through, as does one without a file name unless the disk is full or failing.
    """
    try:
        yield
    except OSError as error:
        place = None if error.filename is None else Path(os.fsdecode(error.filename)).absolute()
        ours = place is not None and (
            place.is_relative_to(run_dir.absolute()) or run_dir.absolute().is_relative_to(place)
        )
        if ours or disk_reason(error):
            raise UserError(f"run_dir {str(run_dir)!r} cannot be written: {error.strerror}") from error
        raise
