"""Documents out of files of any size, as streams: plain and packed text, JSON lines, Parquet."""

import contextlib
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from jaxlm.config import PrepareConfig
from jaxlm.data.files import Span, kind_of, next_cut, parquet_file
from jaxlm.data.unpacking import READ_BYTES, Limited, Unzstd
from jaxlm.errors import UserError, reading

HEAD = 2**16
"""Characters at a document's beginning whose hash decides its split."""
BLOCK = 2**20
"""Characters of a document that are in memory at once."""
ROWS = 64
"""Rows of a Parquet file that are in memory at once."""

Parts = Iterator[tuple[str, bool]]
"""Parts of documents in order, at most BLOCK characters each, with True at the last part of a document."""


class Fragment(NamedTuple):
    """A document, or a part of one of more than BLOCK characters. Its line ends are LF."""

    text: str
    head: str
    """The document's first HEAD characters."""
    ends: bool
    """False where more of the document follows."""


def fragments_of(span: Span, config: PrepareConfig) -> Iterator[Fragment]:
    """The documents of a span in order, without those of white space alone.

    A .txt file that is one document is cut at its spans' ends; any other document belongs to the span in which it
    begins. Raises UserError naming the file where it cannot be read, unpacked or decoded.
    """
    path = Path(span.path)
    kind, packed = kind_of(path)
    with _naming(path):
        if kind == "parquet":
            yield from _documents(_rows(path, span, config.field))
            return
        document = config.document if kind == "text" else "lines"
        start, end = _range(path, packed, span, document)
        if start == end:
            return
        with _opened(path, packed, start, end) as text:
            if kind == "json":
                yield from _documents(_fields(text, config.field))
            elif document == "lines":
                yield from _documents(_lines(text))
            elif document == "blank-lines":
                yield from _documents(_paragraphs(text))
            else:
                yield from _documents(_blocks(text), _head(path) if start else None, ends=end == span.whole)


def _documents(parts: Parts, head: str | None = None, *, ends: bool = True) -> Iterator[Fragment]:
    """Documents put together from their parts, and cut again where they have more than BLOCK characters.

    `head` is that of a document which begins before the first part; `ends` tells whether the last one ends with them.
    """
    held = ""
    for part, is_last in parts:
        held += part
        while len(held) > BLOCK:
            head = held[:HEAD] if head is None else head
            at = _last_cut(held)
            yield Fragment(held[:at], head, False)
            held = held[at:]
        if is_last:
            yield from _last(held, head)
            held, head = "", None
    if held or head is not None:
        yield from _last(held, head, ends)


def _last(text: str, head: str | None, ends: bool = True) -> Iterator[Fragment]:
    """The end of a document that began with `head`, or all of one, if it is not white space alone."""
    if head is not None:
        yield Fragment(text, head, ends)
    elif text and not text.isspace():
        yield Fragment(text, text[:HEAD], ends)


def _last_cut(text: str) -> int:
    """The last place where a document may be cut (files.WITHIN): after a line's end, before a blank, or the end."""
    for sign, after in (("\n", 1), (" ", 0)):
        at = len(text) - 1
        while (at := text.rfind(sign, 1, at)) > 0:
            if not text[at - 1].isspace() and not text[at + 1].isspace():
                return at + after
    return len(text)


def _blocks(text: TextIO) -> Parts:
    while block := text.read(BLOCK):
        if "\0" in block:
            raise UserError("wants text, got a binary file or UTF-16 (it has a zero byte)")
        yield block, False


def _lines(text: TextIO) -> Parts:
    while line := text.readline(BLOCK):
        yield line.removesuffix("\n"), line.endswith("\n")


def _paragraphs(text: TextIO) -> Parts:
    """The lines between blank ones, with LF between them."""
    begun, at_start = False, True
    while line := text.readline(BLOCK):
        if at_start and line.isspace():
            yield "", True
            begun = False
        else:
            yield ("\n" if begun and at_start else "") + line.removesuffix("\n"), False
            begun = True
        at_start = line.endswith("\n")


def _fields(text: TextIO, field: str) -> Parts:
    """The texts in a field of JSON objects, one a line."""
    for line in text:
        if line.isspace():
            continue
        try:
            value = json.loads(line)[field]
        except (ValueError, KeyError, TypeError):
            value = None
        if not isinstance(value, str):
            raise UserError(
                f"wants a JSON object whose {field!r} is a string on each line, got {line[:60].strip()!r} (--field "
                "names another)"
            )
        yield from _in_blocks(value)


def _rows(path: Path, span: Span, field: str) -> Parts:
    """The texts in a column of a Parquet file."""
    with parquet_file(path) as file:
        names = file.schema_arrow.names
        if field not in names:
            raise UserError(f"wants a column {field!r}, got {', '.join(names)}: name one with --field")
        groups = list(range(span.start, span.end))
        for batch in file.iter_batches(batch_size=ROWS, row_groups=groups, columns=[field], use_threads=False):
            for value in batch.column(0).to_pylist():
                if value is not None and not isinstance(value, str):
                    raise UserError(f"wants strings in the column {field!r}, got {type(value).__name__}")
                yield from _in_blocks(value or "")


def _in_blocks(text: str) -> Parts:
    for start in range(0, max(len(text), 1), BLOCK):
        yield text[start : start + BLOCK], start + BLOCK >= len(text)


def _range(path: Path, packed: str, span: Span, document: str) -> tuple[int, int]:
    """The bytes of a span, cut where documents may be cut; of a packed file all."""
    if packed:
        return span.start, span.end
    with reading(path, "file"), path.open("rb") as file:
        start, end = (next_cut(file, place, span.whole, document) for place in (span.start, span.end))
        return start, end


@contextlib.contextmanager
def _opened(path: Path, packed: str, start: int, end: int) -> Iterator[TextIO]:
    """The text between two bytes of a file, or all of a packed file, LF at its line ends."""
    with reading(path, "file"), path.open("rb") as file:
        if packed == ".gz":
            raw: Any = gzip.GzipFile(fileobj=file)
        elif packed == ".zst":
            raw = io.BufferedReader(Unzstd(file), READ_BYTES)
        else:
            file.seek(start)
            raw = io.BufferedReader(Limited(file, end - start), READ_BYTES)
        yield io.TextIOWrapper(raw, "utf-8" if start else "utf-8-sig")


def _head(path: Path) -> str:
    """The first HEAD characters of a text that is not packed."""
    with path.open(encoding="utf-8-sig") as text:
        return text.read(HEAD)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Context for reading a file: every error about what is in it becomes a UserError that names it."""
    file = f"file {str(path)!r}"
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file} wants UTF-8, got byte 0x{error.object[error.start]:02x} ({error.reason}): convert it with: iconv "
            "-f NAME -t utf-8 FILE > NEW"
        ) from None
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{file} {error}") from None
    except (EOFError, zlib.error) as error:
        raise UserError(f"{file} cannot be unpacked, it is damaged or cut off: {error}") from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("zstd", "zstandard", "pyarrow"):
            raise UserError(f"{file} cannot be read, it is damaged or cut off: {error}") from None
        raise
