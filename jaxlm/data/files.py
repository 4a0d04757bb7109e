"""Files of text to be prepared: found below paths and patterns, and cut into units of work of about the same size."""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from jaxlm.errors import UserError, near_path, reading

KINDS = {".txt": "text", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
"""How a file is read, by its name's end."""
PACKED = (".gz", ".zst")
"""Ends of the names of packed files, after those of KINDS: book.txt.gz."""
ENDINGS = ", ".join([*KINDS, *(f"{end}{packed}" for end in (".txt", ".jsonl") for packed in PACKED)])
"""The ends of names, as errors list them."""
UNIT_BYTES = 2**24
"""Bytes of a unit of work, about: a file is cut into such spans, and smaller ones are put together."""
LOOK = 2**20
"""Bytes after a place in which a cut is looked for."""
OVERLAP = 2**10
"""Bytes that are searched again with those after them: the longest blank line that separates documents."""
SEPARATORS = {"lines": re.compile(rb"\n"), "blank-lines": re.compile(rb"\n[ \t\r\f\v]*\n")}
"""The separators of documents, by `document`."""
WITHIN = (re.compile(rb"\S\r?\n(?=\S)"), re.compile(rb"\S(?= \S)"))
"""Where a document itself may be cut, the first where it is found: after a line's end, before a blank, each between two
others. Tokenizers that cut a text at white space give its parts the tokens that they give the whole.
"""


class Span(NamedTuple):
    """A part of a file that one process reads."""

    path: str
    start: int
    """The first byte (the first row group of a Parquet file); of a text that is not packed, the cut at or after it."""
    end: int
    """The end in bytes or row groups, found as the start is."""
    whole: int
    """The end of the file in the same units."""


def find_files(paths: Sequence[str | Path]) -> list[Path]:
    """The files that paths name, each once: files, all files below directories, and patterns (*, ?, [...], **).

    Directories and patterns give their files in the order of their names. Raises UserError for a path that gives none,
    and for a file whose name does not end as those that can be read do.
    """
    if not paths:
        raise UserError("prepare wants files, directories or patterns of them, got none")
    found = dict.fromkeys(file for path in paths for file in _found(Path(path)))
    for file in found:
        kind_of(file)
    return list(found)


def kind_of(path: Path) -> tuple[str, str]:
    """How a file is read (a value of KINDS), and the end of PACKED that its name has, or ""."""
    packed = path.suffix.lower() if path.suffix.lower() in PACKED else ""
    kind = KINDS.get((path.with_suffix("") if packed else path).suffix.lower())
    if kind is None or (packed and kind == "parquet"):
        raise UserError(f"prepare wants files named {ENDINGS}, got {str(path)!r}")
    return kind, packed


def units_of(files: Iterable[Path]) -> list[tuple[Span, ...]]:
    """The work: spans of files of UNIT_BYTES together, in order. It depends on names and sizes alone."""
    units: list[tuple[Span, ...]] = []
    spans: list[Span] = []
    size = 0
    for span, weight in (found for file in files for found in _spans(file)):
        spans.append(span)
        size += weight
        if size >= UNIT_BYTES:
            units.append(tuple(spans))
            spans, size = [], 0
    return [*units, tuple(spans)] if spans else units


def next_cut(file: BinaryIO, place: int, size: int, document: str) -> int:
    """The first byte at or after `place` at which a text may be cut so that each document (`document`: lines,
    blank-lines) lies in one part; with "file" the text is one document, which is cut as WITHIN says.
    """
    if place in (0, size):
        return place
    file.seek(place)
    if document == "file":
        raw = file.read(LOOK)
        found = next((match for pattern in WITHIN if (match := pattern.search(raw))), None)
        return place + (found.end() if found else _whole_character(raw))
    held = b""
    while raw := file.read(LOOK):
        held += raw
        place += len(raw)
        if match := SEPARATORS[document].search(held):
            return place - len(held) + match.end()
        held = held[-OVERLAP:]
    return size


def parquet_file(path: Path) -> Any:
    """A Parquet file, opened. Raises UserError where pyarrow is missing or cannot read it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{str(path)!r} wants pyarrow to be read: pip install 'jaxlm[parquet]'") from None
    with reading(path, "file"):
        try:
            return pyarrow.parquet.ParquetFile(path)
        except pyarrow.ArrowException as error:
            raise UserError(f"file {str(path)!r} cannot be read as Parquet: {error}") from error


def _found(path: Path) -> Iterator[Path]:
    if path.is_dir():
        inside = sorted(Path(folder) / name for folder, _, names in os.walk(path) for name in names)
        files = [file for file in inside if _can_be_read(file)]
        if not files:
            raise UserError(f"the directory {str(path)!r} has no files named {ENDINGS}")
        yield from files
    elif path.is_file():
        yield path
    elif glob.has_magic(str(path)):
        files = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())  # noqa: PTH207
        if not files:
            raise UserError(f"no file is named {str(path)!r}")
        yield from files
    else:
        raise UserError(f"{str(path)!r} does not exist{near_path(path)}")


def _can_be_read(path: Path) -> bool:
    try:
        kind_of(path)
    except UserError:
        return False
    return True


def _spans(path: Path) -> Iterator[tuple[Span, int]]:
    """The spans of a file in order, each with its size in bytes."""
    kind, packed = kind_of(path)
    if kind == "parquet":
        with parquet_file(path) as file:
            groups = file.metadata.num_row_groups
            for group in range(groups):
                yield Span(str(path), group, group + 1, groups), file.metadata.row_group(group).total_byte_size
        return
    with reading(path, "file"):
        size = path.stat().st_size
    step = size if packed else UNIT_BYTES
    for start in range(0, size, max(1, step)):
        end = min(start + step, size)
        yield Span(str(path), start, end, size), end - start


def _whole_character(raw: bytes) -> int:
    """The bytes at the beginning that belong to a UTF-8 character, or a line's end, before them."""
    inside = next((i for i, byte in enumerate(raw[:4]) if byte & 0xC0 != 0x80), len(raw))
    return inside + (raw[inside : inside + 1] == b"\n")
