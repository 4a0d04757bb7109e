"""Errors that the command line answers with an exit code of their own, and the hint that goes with a wrong path."""

import difflib
import errno
from pathlib import Path


class UserError(ValueError):
    """A setting, file or argument that cannot be used as given.

    The message is one line: the setting, what it wanted, what it got, and the fix when there is one.
    The command line prints it without a traceback and exits with code 2.
    """


class NonFiniteLoss(Exception):
    """Training produced a loss that is not a number; the command line exits with code 3."""


def near_path(path: Path) -> str:
    """A hint " (did you mean ...?)" with the sibling file whose name comes nearest, or nothing."""
    try:
        siblings = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, siblings, n=1)
    return f" (did you mean {str(path.parent / near[0])!r}?)" if near and near[0] != path.name else ""


def disk_reason(error: BaseException) -> str | None:
    """What the operating system said where an error, or one behind it, is a full or failing disk; else None."""
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
