"""Checksums of a checkpoint's files: written once it is complete, checked before it is read.

Files are read in blocks, so that none is in memory as a whole. Several processes take a share of the files each: every
process computes or checks its own, and the results are merged.
"""

import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

from jaxlm.runs.directory import write_bytes

CHECKSUMS = "files.json"
"""The file in each checkpoint that lists a checksum of each of its other files."""
BLOCK = 2**20
"""Bytes that are read at once."""


def checksums(place: Path, process: int = 0, processes: int = 1, names: Sequence[str] | None = None) -> dict[str, int]:
    """CRC-32 of each file that is the process's share of a checkpoint, by its path in there.

    In the order of their names, file n is process n % processes's: the union of all processes' results is the result of
    one. `names` are all files as the first process lists them, since another host may see them later. Raises OSError if
    a file or directory cannot be read.
    """
    names = file_names(place) if names is None else names
    return {name: _crc32(place / name) for name in names[process::processes]}


def write_checksums(place: Path, found: dict[str, int]) -> None:
    """Write the list of checksums, those of all processes merged, atomically."""
    write_bytes(place / CHECKSUMS, json.dumps(found).encode())


def read_checksums(place: Path) -> dict[str, int] | None:
    """The list of checksums of a checkpoint; None if it is damaged, or if there are other files than it names.

    Empty without a list, which a kill right after a save leaves out. Raises OSError if a file or directory cannot be
    read.
    """
    if not (place / CHECKSUMS).exists():
        return {}
    try:
        wanted = json.loads((place / CHECKSUMS).read_text())
    except ValueError:
        return None
    return wanted if isinstance(wanted, dict) and sorted(wanted) == file_names(place) else None


def is_intact(place: Path, wanted: dict[str, int], process: int = 0, processes: int = 1) -> bool:
    """True if the files of the process's share have the checksums that are `wanted`, by `read_checksums`.

    A checkpoint is intact if it is for every process. Orbax does not notice a flipped bit in a larger array, and
    reports a missing file from other threads. Raises OSError if a file cannot be read.
    """
    return all(wanted[name] == crc for name, crc in checksums(place, process, processes, sorted(wanted)).items())


def file_names(place: Path) -> list[str]:
    """The paths of a checkpoint's files in there, sorted, without the list of checksums."""

    def refuse(error: OSError) -> None:
        raise error

    paths = [Path(folder, name) for folder, _, names in os.walk(place, onerror=refuse) for name in names]
    return sorted(str(path.relative_to(place)) for path in paths if path.name != CHECKSUMS)


def _crc32(path: Path) -> int:
    crc, block = 0, memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(block):
            crc = zlib.crc32(block[:size], crc)
    return crc
