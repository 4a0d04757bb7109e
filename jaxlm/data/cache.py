"""A folder of cached results, kept below a total size: the least recently used entries go."""

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

PART, REMOVED = ".part-", ".removed-"
"""How the names of entries begin that are being written, or removed."""
ABANDONED_S = 86_400.0
"""Seconds after which a part or a removed entry was left by a process that was killed."""


def mark_used(entry: Path) -> None:
    """Make an entry the most recently used one. An entry that is gone or may not be written to stays as it is."""
    with contextlib.suppress(OSError):
        os.utime(entry)


def prune(folder: Path, most_bytes: int, in_use: Path) -> None:
    """Remove the least recently used entries (directories) until the folder has at most `most_bytes`.

    `in_use` is never removed, however large. An entry disappears at once, by a rename; a process that has mapped its
    files keeps them. Entries that other processes add or remove meanwhile, or that may not be removed, are passed over.
    """
    total = _size(in_use)
    for _, entry in sorted(_entries(folder), reverse=True):
        if entry.name.startswith((PART, REMOVED)):
            if time.time() - _used_at(entry) > ABANDONED_S:
                shutil.rmtree(entry, ignore_errors=True)
        elif entry != in_use:
            total += (size := _size(entry))
            if total > most_bytes:
                remove(entry)
                total -= size


def _entries(folder: Path) -> list[tuple[float, Path]]:
    """When each entry was used last, and its path."""
    return [(_used_at(entry), entry) for entry in folder.iterdir() if entry.is_dir()]


def _used_at(entry: Path) -> float:
    """Seconds since the epoch; 0 where another process has removed it."""
    try:
        return entry.stat().st_mtime
    except OSError:
        return 0.0


def _size(entry: Path) -> int:
    """Bytes of an entry's files; those that vanish meanwhile count nothing."""
    total = 0
    with contextlib.suppress(OSError):
        for file in os.scandir(entry):
            with contextlib.suppress(OSError):
                total += file.stat().st_size
    return total


def remove(entry: Path) -> None:
    """Remove an entry at once, by a rename. One that is gone or may not be removed is passed over."""
    with contextlib.suppress(OSError):
        removed = Path(tempfile.mkdtemp(prefix=REMOVED, dir=entry.parent))
        with contextlib.suppress(OSError):
            entry.rename(removed / entry.name)
        shutil.rmtree(removed, ignore_errors=True)
