"""Lines `word number ... number` of word2vec's text format (after its header) and of GloVe's, parsed in blocks."""

import re
import warnings
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from jaxlm.embeddings.bad_rows import BadRows

TEXT_BLOCK_BYTES = 2**23
"""Bytes parsed together."""
ROWS_AT_ONCE = 4096
"""Rows written together."""
LINE_END, SPACE, TAB, RETURN = b"\n \t\r"
"""Bytes that end a line and a field."""
DECIMAL_COMMA = re.compile(rb"[-+]?\d*,\d+([eE][-+]?\d+)?")


class Layout(NamedTuple):
    """How the lines of a file are cut into a word and its numbers."""

    width: int
    """E, the numbers of a row."""
    spaced: bool
    """True if a word is all that precedes the last E numbers, blanks included, as in large GloVe files."""
    errors: str
    """Handling of bytes that are not UTF-8, as in bytes.decode."""
    blanks: bytes = b" \t"
    """Bytes between the fields, any number of them at once."""


def width_of(line: bytes) -> int:
    """Count the numbers in the first row of a file without a header; 0 if there are none.

    They follow the word: the first field, and those after it without a digit, since a word may have blanks.
    """
    fields = line.split()[1:]
    while fields and not _is_number(fields[0]) and not re.search(rb"\d", fields[0]):
        fields = fields[1:]
    return len(fields)


def read_lines(stream: BinaryIO, first: int, layout: Layout, bad: BadRows) -> tuple[list[str], np.ndarray]:
    """Read the remaining lines `word number ... number` as words and vec_VE (float32), skipping empty lines.

    `first` is the number of the first line. The fields are separated as the first row has them: by blanks, else by
    tabs, else by either. A row that is malformed or has a number that is not finite goes to `bad`.
    """
    words: list[str] = []
    blocks: list[np.ndarray] = []
    rest, begun = b"", False
    while True:
        read = stream.read(TEXT_BLOCK_BYTES)
        block, end, part = (rest + read).rpartition(b"\n")
        if not read:
            block, end, part = part, b"\n", b""
        rest = part
        if end and block.strip():
            if not begun:
                layout, begun = layout._replace(blanks=_blanks(block, layout.width)), True
            new, vec_NE = _parse(block + end, layout) or _parse_each(block, first, layout, bad)
            words += new
            blocks.append(vec_NE)
        if not read:
            break
        first += block.count(b"\n") + len(end)
    return words, np.concatenate(blocks) if blocks else np.zeros((0, layout.width), np.float32)


def format_lines(words: tuple[str, ...], vec_VE: np.ndarray) -> Iterator[bytes]:
    """Yield the table's lines in UTF-8, ROWS_AT_ONCE at a time, each number as short as its float32 allows."""
    for start in range(0, len(words), ROWS_AT_ONCE):
        rows = vec_VE[start : start + ROWS_AT_ONCE].astype("S").tolist()
        spelled = words[start : start + ROWS_AT_ONCE]
        yield b"".join(b"%b %b\n" % (word.encode(), b" ".join(row)) for word, row in zip(spelled, rows, strict=True))


def _blanks(block: bytes, width: int) -> bytes:
    """The bytes between the fields of the first row in a block."""
    row = block.lstrip().partition(b"\n")[0].strip()
    if len(re.findall(rb" +", row)) >= width:
        return b" "
    return b"\t" if row.count(b"\t") >= width else b" \t"


def _parse(block: bytes, layout: Layout) -> tuple[list[str], np.ndarray] | None:
    """Parse a block of whole lines into words and vec_NE; None if any row is not as the layout says.

    One pass over the bytes finds line ends and blanks; then the words are overwritten with spaces, so that a single
    call parses all numbers.
    """
    width = layout.width
    char = np.frombuffer(block, np.uint8)
    end_N = np.flatnonzero(char == LINE_END)
    start_N = np.concatenate([[0], end_N[:-1] + 1])
    while (blank_N := (end_N > start_N) & np.isin(char[end_N - 1], (SPACE, TAB, RETURN))).any():
        end_N = end_N - blank_N
    while (blank_N := (end_N > start_N) & np.isin(char[start_N], (SPACE, TAB))).any():
        start_N = start_N + blank_N
    start_N, end_N = start_N[end_N > start_N], end_N[end_N > start_N]
    blank = char == layout.blanks[0]
    for byte in layout.blanks[1:]:
        blank |= char == byte
    blank_S = np.flatnonzero(blank[1:] & ~blank[:-1]) + 1  # the first of each run
    after_N = np.searchsorted(blank_S, end_N)
    found_N = after_N - np.searchsorted(blank_S, start_N)
    if (found_N < width).any() or (not layout.spaced and (found_N > width).any()):
        return None
    try:
        for row in np.flatnonzero(found_N > width).tolist():
            _cut(block[start_N[row] : end_N[row]], layout)
    except ValueError:
        return None
    gap_N = blank_S[after_N - width]
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
        words = spelled[in_word].tobytes().removesuffix(b"\n").decode("utf-8", layout.errors).split("\n")
    except (DeprecationWarning, ValueError):
        return None
    if len(vec) != len(start_N) * width or not np.isfinite(vec).all():
        return None
    return words, vec.reshape(-1, width)


def _parse_each(block: bytes, first: int, layout: Layout, bad: BadRows) -> tuple[list[str], np.ndarray]:
    """Parse the lines of a block one by one, each with blanks and tabs where it does not fit otherwise."""
    words, rows = [], []
    for number, line in enumerate(block.split(b"\n"), first):
        if not line.strip(b" \t\r"):
            continue
        try:
            try:
                word, row_E = _row(line, layout)
            except ValueError:
                word, row_E = _row(line, layout._replace(blanks=b" \t"))
        except ValueError as error:
            bad.add(f"line {number} {error}")
        else:
            words.append(word)
            rows.append(row_E)
    return words, np.array(rows, np.float32).reshape(-1, layout.width)


def _row(line: bytes, layout: Layout) -> tuple[str, np.ndarray]:
    """The word and vector of a line. Raises ValueError with the reason if it has none."""
    spelled, fields = _cut(line.rstrip(b" \t\r"), layout)
    try:
        word = spelled.decode("utf-8", layout.errors)
    except UnicodeDecodeError as error:
        raise ValueError(not_utf8(spelled, error)) from None
    with np.errstate(over="ignore"):
        row_E = np.array([float(field) for field in fields]).astype(np.float32)
    if not np.isfinite(row_E).all():
        wrong = fields[int(np.argmin(np.isfinite(row_E)))]
        raise ValueError(f"({_show(spelled)}) wants finite numbers, got {_show(wrong)}")
    return word, row_E


def not_utf8(word: bytes, error: UnicodeDecodeError) -> str:
    """The reason why a word cannot be read, and what to do."""
    return (
        f"wants UTF-8, got byte 0x{word[error.start]:02x} in the word {word!r}: write it in UTF-8, or read it in "
        "Python by Embeddings.load(..., errors='replace')"
    )


def _cut(line: bytes, layout: Layout) -> tuple[bytes, list[bytes]]:
    """Cut a line without blanks at its end into a word and E numbers. Raises ValueError with the reason it has none."""
    width, text = layout.width, line.lstrip(layout.blanks)
    gaps = [gap.span() for gap in re.finditer(rb"[%b]+" % layout.blanks, text)]
    begins = [0, *(end for _, end in gaps)]
    fields = [text[begin:end] for begin, (end, _) in zip(begins, [*gaps, (len(text), 0)], strict=True)]
    if text != line and len(gaps) == width - 1:
        raise ValueError("wants a word before its numbers, got a blank")
    place, values = f"({_show(fields[0])})", [_is_number(field) for field in fields]
    word = text[: gaps[-width][0]] if len(gaps) >= width else b""
    if len(gaps) > width and not values[-width - 1]:
        fields, values = fields[-width - 1 :], values[-width - 1 :]
        if not layout.spaced and all(values[1:]):
            raise ValueError(f"wants a word without blanks, got {_show(word)}")
    if len(fields) != width + 1:
        raise ValueError(f"{place} wants {width} numbers, got {len(fields) - 1}")
    if not all(values[1:]):
        wrong = fields[1 + values[1:].index(False)]
        kind = "numbers with a decimal point" if DECIMAL_COMMA.fullmatch(wrong) else "numbers"
        raise ValueError(f"{place} wants {kind}, got {_show(wrong)}")
    return word, fields[1:]


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return b"_" not in field and field == field.strip()


def _show(raw: bytes) -> str:
    return repr(raw.decode("utf-8", "replace")[:40])
