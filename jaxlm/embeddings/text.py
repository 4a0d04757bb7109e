"""Lines `word number ... number` of word2vec's text format (after its header) and of GloVe's, parsed in blocks."""

import warnings
from collections.abc import Callable, Iterator
from typing import BinaryIO, NoReturn

import numpy as np

from jaxlm.errors import UserError

TEXT_BLOCK_BYTES = 2**23
"""Bytes parsed together."""
ROWS_AT_ONCE = 4096
"""Rows written together."""
LINE_END, SPACE = 10, 32
"""Bytes that end a line and a field."""

Decode = Callable[[bytes, int], list[str]]
"""(words joined by line ends, number of the first word or line) → the words as strings."""


def read_lines(
    stream: BinaryIO, first: int, width: int, spaced: bool, name: str, decode: Decode
) -> tuple[list[str], np.ndarray]:
    """Read the remaining lines `word number ... number` as words and vec_VE, skipping empty lines.

    `first` is the number of the first line, `width` is E. If `spaced`, a word is all that precedes the last E numbers,
    spaces included, as in large GloVe files. Raises UserError naming the first malformed line.
    """
    words: list[str] = []
    blocks: list[np.ndarray] = []
    rest = b""
    while True:
        read = stream.read(TEXT_BLOCK_BYTES)
        block, end, part = (rest + read).rpartition(b"\n")
        if not read:
            block, end, part = part, b"\n", b""
        rest = part
        if end and block.strip():
            spelled, vec_NE = _parse(block + end, first, width, spaced, name)
            words += decode(spelled, first)
            blocks.append(vec_NE)
        if not read:
            break
        first += block.count(b"\n") + len(end)
    return words, np.concatenate(blocks) if blocks else np.zeros((0, width), np.float32)


def format_lines(words: tuple[str, ...], vec_VE: np.ndarray) -> Iterator[bytes]:
    """Yield the table's lines in UTF-8, ROWS_AT_ONCE at a time, each number as short as its float32 allows."""
    for start in range(0, len(words), ROWS_AT_ONCE):
        rows = vec_VE[start : start + ROWS_AT_ONCE].astype("S").tolist()
        spelled = words[start : start + ROWS_AT_ONCE]
        yield b"".join(b"%b %b\n" % (word.encode(), b" ".join(row)) for word, row in zip(spelled, rows, strict=True))


def _parse(block: bytes, first: int, width: int, spaced: bool, name: str) -> tuple[bytes, np.ndarray]:
    """Parse a block of whole lines into words joined by line ends, and vec_NE.

    One pass over the bytes finds line ends and spaces; then the words are overwritten with spaces, so that a single
    call parses all numbers.
    """
    char = np.frombuffer(block, np.uint8)
    end_N = np.flatnonzero(char == LINE_END)
    start_N = np.concatenate([[0], end_N[:-1] + 1])
    while (blank_N := (end_N > start_N) & np.isin(char[end_N - 1], (SPACE, 9, 13))).any():
        end_N = end_N - blank_N
    start_N, end_N = start_N[end_N > start_N], end_N[end_N > start_N]
    space_S = np.flatnonzero(char == SPACE)
    after_N = np.searchsorted(space_S, end_N)
    found_N = after_N - np.searchsorted(space_S, start_N)
    if (found_N < width).any() or (not spaced and (found_N > width).any()):
        _blame(block, first, width, spaced, name)
    gap_N = space_S[after_N - width]
    if (gap_N == start_N).any() or (found_N > width).any() or (np.diff(space_S) == 1).any():
        _blame_if_wrong(block, first, width, spaced, name)
    step = np.zeros(len(char) + 1, np.int8)
    step[start_N] += 1
    step[gap_N + 1] -= 1
    in_word = np.cumsum(step[:-1], dtype=np.int8).astype(bool)
    numbers, spelled = char.copy(), char.copy()
    numbers[in_word] = SPACE
    spelled[gap_N] = LINE_END
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            vec = np.fromstring(numbers.tobytes(), np.float32, sep=" ")
    except (DeprecationWarning, ValueError):
        _blame(block, first, width, spaced, name)
    if len(vec) != len(start_N) * width:
        _blame(block, first, width, spaced, name)
    return spelled[in_word].tobytes().removesuffix(b"\n"), vec.reshape(-1, width)


def _blame(block: bytes, first: int, width: int, spaced: bool, name: str) -> NoReturn:
    _blame_if_wrong(block, first, width, spaced, name)
    raise AssertionError(f"{name}: a block from line {first} on could not be read, but each of its lines can")


def _blame_if_wrong(block: bytes, first: int, width: int, spaced: bool, name: str) -> None:
    """Raise UserError for the first malformed line of a block, if there is one."""
    for number, line in enumerate(block.split(b"\n"), first):
        if not (line := line.rstrip(b" \t\r")):
            continue
        word, *fields = line.split(b" ")
        place = f"{name}, line {number} ({_show(word)})"
        values = [_is_number(field) for field in fields]
        if not word:
            raise UserError(f"{name}, line {number} wants a word before its numbers, got a blank")
        if len(fields) > width and not values[len(fields) - width - 1]:
            if spaced:
                fields, values = fields[-width:], values[-width:]
            elif all(values[-width:]):
                spelled = b" ".join(line.split(b" ")[:-width])
                raise UserError(f"{name}, line {number} wants a word without blanks, got {_show(spelled)}")
        if len(fields) != width:
            raise UserError(f"{place} wants {width} numbers, got {len(fields)}")
        if not all(values):
            raise UserError(f"{place} wants numbers, got {_show(fields[values.index(False)])}")


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return b"_" not in field and field == field.strip()


def _show(raw: bytes) -> str:
    return repr(raw.decode("utf-8", "replace")[:40])
