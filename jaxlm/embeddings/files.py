"""Files of word vectors: word2vec text and binary, GloVe text, each gzipped or not."""

import codecs
import collections
import contextlib
import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy as np

from jaxlm.embeddings import binary, text
from jaxlm.embeddings.bad_rows import BadRows
from jaxlm.embeddings.other_kinds import HEAD, LONGEST_LINE, refuse_first_line, refuse_other_kinds
from jaxlm.errors import UserError, reading

Format = Literal["word2vec", "binary", "glove"]
"""word2vec: a line `V E`, then V lines `word numbers`. binary: that line, then words and raw float32. glove: only the
lines `word numbers`."""
DecodeErrors = Literal["strict", "replace", "ignore"]
"""Handling of bytes that are not UTF-8, as in bytes.decode."""
SUFFIXES: dict[str, Format] = {
    ".glove.txt": "glove",
    ".glove": "glove",
    ".txt": "word2vec",
    ".vec": "word2vec",
    ".bin": "binary",
}
"""Format by suffix, longer suffixes first."""
GZIP_MAGIC = b"\x1f\x8b"
"""First bytes of a gzip file."""
FIRST_ROWS = 100
"""Rows that tell how many numbers a row has, where line 1 does not."""
NUMERALS = frozenset("0123456789+-.eE")
"""Characters of a number in text."""


def read_table(
    path: Path, errors: DecodeErrors, log: Callable[[str], None], *, skip_bad_rows: bool = False
) -> tuple[tuple[str, ...], np.ndarray]:
    """Read words and vec_VE (float32) from a file, whose format is detected from its content.

    A byte-order mark is skipped. If a word is repeated, its first vector is kept and the others are reported to `log`.
    A row that is malformed or has a number that is not finite is an error; with skip_bad_rows such rows are left out
    and reported to `log`. Raises UserError naming the file and the place in it if it cannot be read, contradicts its
    first line, or is a file of another kind.
    """
    name = f"vectors {str(path)!r}"
    bad = BadRows(name, skip=skip_bad_rows)
    with reading(path, "vectors", "a file"):
        try:
            with _opened(path) as stream:
                refuse_other_kinds(stream.peek(HEAD)[:HEAD], path, name)  # type: ignore[attr-defined]
                words, vec_VE = _read_stream(stream, name, errors, bad)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f"{name} is a damaged gzip file: {error}") from error
    bad.report(log)
    if not words:
        raise UserError(f"{name} wants at least one word, got none{' that can be used' if bad.count else ''}")
    return _first_of_equal(words, vec_VE, name, log)


def write_table(path: Path, words: tuple[str, ...], vec_VE: np.ndarray, format: Format | None) -> None:
    """Write a file atomically, in `format` or the one its suffix names (SUFFIXES; followed by .gz: gzipped).

    Raises UserError for another suffix, for a word that no format can hold (empty, or with a space or a line end), and
    if the file cannot be written.
    """
    chosen = format or _format_of(path)
    for word in words:
        if not word or " " in word or "\n" in word:
            raise UserError(f"vectors {str(path)!r} wants words without blanks and line ends, got {word!r}")
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file, contextlib.ExitStack() as stack:
            stream: BinaryIO = file
            if path.suffix == ".gz":
                packed = gzip.GzipFile("", "wb", fileobj=file, compresslevel=6, mtime=0)
                stream = cast(BinaryIO, stack.enter_context(packed))
            if chosen != "glove":
                stream.write(b"%d %d\n" % vec_VE.shape)
            elif words and words[0].startswith("\ufeff"):  # readers drop one byte-order mark
                stream.write(codecs.BOM_UTF8)
            for piece in (binary.format_records if chosen == "binary" else text.format_lines)(words, vec_VE):
                stream.write(piece)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"vectors {str(path)!r} cannot be written: {error.strerror or error}") from error
    except UnicodeEncodeError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"vectors {str(path)!r} wants words that can be UTF-8, got {error.object!r}") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        packed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        if packed:
            with gzip.GzipFile(fileobj=file) as stream:
                yield cast(BinaryIO, stream)
        else:
            yield file


def _read_stream(stream: BinaryIO, name: str, errors: DecodeErrors, bad: BadRows) -> tuple[list[str], np.ndarray]:
    line, number = stream.readline(LONGEST_LINE).removeprefix(codecs.BOM_UTF8), 1
    while line and not line.strip():
        line, number = stream.readline(LONGEST_LINE), number + 1
    header = line.split()
    if len(header) != 2 or not all(field.isdigit() for field in header):
        return _read_glove(stream, line, number, name, errors, bad)
    count, width = map(int, header)
    if not count or not width:
        raise UserError(f"{name}, line 1 wants the numbers of words and of numbers each has, got {line.strip()!r}")
    sample = stream.read(text.TEXT_BLOCK_BYTES)
    following = cast(BinaryIO, _Resumed(sample, stream))
    if not _is_text(sample, 4 * width):
        return _usable(*binary.read_records(following, count, width, name), errors, bad)
    layout = text.Layout(width, spaced=False, errors=errors)
    words, vec_VE = text.read_lines(following, number + 1, layout, bad)
    bad.check_count(count, len(words) + bad.count)
    return words, vec_VE


def _read_glove(
    stream: BinaryIO, line: bytes, number: int, name: str, errors: DecodeErrors, bad: BadRows
) -> tuple[list[str], np.ndarray]:
    if not line:
        return [], np.zeros((0, 0), np.float32)
    refuse_first_line(line, name)
    sample = line + stream.read(text.TEXT_BLOCK_BYTES)
    following = cast(BinaryIO, _Resumed(sample, stream))
    return text.read_lines(following, number, text.Layout(_usual_width(sample), spaced=True, errors=errors), bad)


def _usual_width(sample: bytes) -> int:
    """Count the numbers of a row as most of the first rows have them; the very first may be a bad one."""
    widths = map(text.width_of, sample.split(b"\n", FIRST_ROWS)[:FIRST_ROWS])
    return collections.Counter(width for width in widths if width).most_common(1)[0][0]


def _usable(words: list[bytes], vec_VE: np.ndarray, errors: DecodeErrors, bad: BadRows) -> tuple[list[str], np.ndarray]:
    """The words of binary records as strings, with their vectors, without those that cannot be used."""
    wrong: dict[int, str] = {}
    try:
        spelled = b"\n".join(words).decode("utf-8", errors).split("\n")
    except UnicodeDecodeError:
        spelled = []
        for row, word in enumerate(words):
            try:
                spelled.append(word.decode())
            except UnicodeDecodeError as error:
                spelled.append(word.decode("utf-8", "replace"))
                wrong[row] = text.not_utf8(word, error)
    with np.errstate(over="ignore", invalid="ignore"):
        suspect = np.flatnonzero(~np.isfinite(vec_VE.sum(axis=1)))
    for row in suspect.tolist():
        if not np.isfinite(vec_VE[row]).all():
            wrong.setdefault(row, f"({spelled[row]!r}) wants finite numbers, got inf or nan")
    if not wrong:
        return spelled, vec_VE
    for row in sorted(wrong):
        bad.add(f"word {row + 1} {wrong[row]}")
    kept = [row for row in range(len(words)) if row not in wrong]
    return [spelled[row] for row in kept], vec_VE[kept]


class _Resumed:
    """A stream that first returns bytes already read from it, then continues reading."""

    def __init__(self, begun: bytes, stream: BinaryIO):
        self._begun, self._stream = begun, stream

    def read(self, size: int) -> bytes:
        begun, self._begun = self._begun, b""
        return begun or self._stream.read(size)


def _is_text(sample: bytes, size: int) -> bool:
    """True if the records after a header are text and not raw floats, of which each word has `size` bytes."""
    if _are_numbers(sample[sample.find(b" ") + 1 :][:size], " \n"):
        return True
    word, tab, rest = sample.lstrip(b"\r\n").partition(b"\t")
    return bool(word and tab) and b"\n" not in word and _are_numbers(rest[:size], " \t\n")


def _are_numbers(raw: bytes, blanks: str) -> bool:
    """True if bytes that follow a word and a blank, as many as its floats would take, are text and not raw floats.

    Text is UTF-8 without control characters, ASCII up to the first line end, and has a space or a line end unless it
    is part of a single number. Raw float32 numbers are next to never all of that, unless there are very few of them.
    """
    try:
        decoded = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            return False
        decoded = raw[: error.start].decode("utf-8")
    if not (set(decoded) & set(blanks) or set(decoded) <= NUMERALS):
        return False
    return decoded.partition("\n")[0].isascii() and all(char >= " " or char in "\n\r\t" for char in decoded)


def _first_of_equal(
    words: list[str], vec_VE: np.ndarray, name: str, log: Callable[[str], None]
) -> tuple[tuple[str, ...], np.ndarray]:
    row_of: dict[str, int] = {}
    for row, word in enumerate(words):
        row_of.setdefault(word, row)
    if len(row_of) == len(words):
        return tuple(words), vec_VE
    kept = list(row_of.values())
    again = next(word for row, word in enumerate(words) if row_of[word] != row)
    more = len(words) - len(kept)
    repeated = f"1 word again ({again!r})" if more == 1 else f"{more:,} words again (the first: {again!r})"
    log(f"{name} has {repeated}; the first of each is kept")
    return tuple(row_of), vec_VE[kept]


def _format_of(path: Path) -> Format:
    name = path.name.removesuffix(".gz")
    for suffix, format in SUFFIXES.items():
        if name.endswith(suffix):
            return format
    raise UserError(
        f"vectors {str(path)!r} wants a suffix that names its format: .txt (word2vec text), .bin (word2vec binary) or "
        ".glove.txt (GloVe), .gz on top to gzip it"
    )
