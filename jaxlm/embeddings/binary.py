"""word2vec's binary format after its header: records of a word, a space and E little-endian float32 numbers."""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from jaxlm.embeddings.text import ROWS_AT_ONCE
from jaxlm.errors import UserError

READ_BYTES = 2**24
"""Bytes per read."""
LONGEST_WORD = 4096
"""Longest word in bytes; a file without a space within this many is damaged."""


def read_records(stream: BinaryIO, count: int, width: int, name: str) -> tuple[list[bytes], np.ndarray]:
    """Read `count` words, as their bytes, and their vectors vec_VE of `width` numbers each.

    A line end before a word is skipped: the original tool writes one after each vector.
    Raises UserError naming the word at which the file is truncated or malformed.
    """
    try:
        vec_VE = np.empty((count, width), "<f4")
    except (MemoryError, ValueError):
        raise UserError(f"{name}, line 1 promises {count:,} x {width:,} numbers: more than fit into memory") from None
    size = 4 * width
    words: list[bytes] = []
    held, place = b"", 0
    while len(words) < count:
        read = stream.read(max(READ_BYTES, size))
        if not read:
            raise UserError(f"{name} ends in word {len(words) + 1} of the {count} that line 1 promises")
        held, place = held[place:] + read, 0
        done, rows = len(words), []
        for _ in range(count - done):
            blank = held.find(b" ", place, place + LONGEST_WORD)
            if blank < 0 or blank + 1 + size > len(held):
                break
            words.append(held[place:blank])
            place = blank + 1 + size
            rows.append(held[blank + 1 : place])
        vec_VE[done : len(words)] = np.frombuffer(b"".join(rows), "<f4").reshape(-1, width)
        if len(words) < count and blank < 0 and len(held) - place >= LONGEST_WORD:
            raise UserError(f"{name}, word {len(words) + 1} wants a blank after it, got none in {LONGEST_WORD} bytes")
    if (held[place:] + stream.read(1)).strip(b"\n"):
        raise UserError(f"{name} goes on after the {count} words that line 1 promises")
    words = [word.lstrip(b"\n") for word in words]
    if any(b"\n" in word for word in words) or b"" in words:
        row, word = next((row, word) for row, word in enumerate(words, 1) if not word or b"\n" in word)
        raise UserError(f"{name}, word {row} wants a word, got {word!r}: the file is damaged")
    return words, vec_VE.astype(np.float32, copy=False)


def format_records(words: tuple[str, ...], vec_VE: np.ndarray) -> Iterator[bytes]:
    """Yield the table's records, ROWS_AT_ONCE rows at a time."""
    for start in range(0, len(words), ROWS_AT_ONCE):
        rows = vec_VE[start : start + ROWS_AT_ONCE].astype("<f4", copy=False)
        spelled = words[start : start + ROWS_AT_ONCE]
        yield b"".join(b"%b %b" % (word.encode(), row.tobytes()) for word, row in zip(spelled, rows, strict=True))
