"""Users' text files: decoded from any encoding, LF at their line ends, with advice where that fails."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jaxlm.errors import UserError, reading

if TYPE_CHECKING:
    import hashlib

BLOCK_BYTES = 2**22
"""Bytes read at once."""
WINDOW = 2**16
"""Bytes before and after one that cannot be decoded from which the encoding is guessed."""
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte-order marks and their encodings, the longer before those that they begin with."""
PACKED = (
    (b"\x1f\x8b", "a gzip file", "unpack it first"),
    (b"BZh", "a bzip2 file", "unpack it first"),
    (b"\xfd7zXZ\0", "an xz file", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "unpack it first"),
    (b"PK\3\4", "a zip archive or a document packed as one", "unpack it, or save the document as plain text"),
    (b"\xd0\xcf\x11\xe0", "an Office document", "save it as plain text"),
    (b"%PDF-", "a PDF document", "save it as plain text"),
)
"""First bytes of files that people take for text, what they are, and what makes text of them."""
HIGH = "À-ÖØ-öø-ÿŒœŠšŽžŸ"
"""The letters of cp1252 beyond ASCII, as a set of a regular expression."""
SIGNS = "¡¢£¤¥¦§©«¬®¯°±²³µ¶¸¹»¼½¾¿×÷€‚ƒ„†‡ˆ‰‹•˜™›“”"
"""Its signs that do not stand between two letters."""
LIKELY = re.compile("[A-Za-z][’‘–—…”à-öø-ÿßšžœ]|[“‘À-ÖØ-Þà-öø-ÿŒŠŽ][A-Za-z]")
"""A letter or a typographic sign beside an ASCII letter: found in every Western European text in cp1252."""
UNLIKELY = re.compile(f"[a-zß-öø-ÿœšž][À-ÖØ-ÞŒŠŽŸ]|[{HIGH}]{{3}}|[A-Za-z{HIGH}][{SIGNS}][A-Za-z{HIGH}]|[ÐðÞþ]")
"""A capital after a small letter, three letters beyond ASCII in a row, a sign within a word, or letters of Icelandic,
which Turkish and the Baltic languages have others for: another encoding, or one that cannot be known."""


def read_pieces(path: Path, what: str, encoding: str = "utf-8", digest: "hashlib._Hash | None" = None) -> Iterator[str]:
    """Yield a file's text in pieces of BLOCK_BYTES: LF, CRLF and CR end its lines (also mixed), and each becomes LF.

    A byte-order mark is left out, and `digest` is fed the file's bytes. Raises UserError beginning with `what` the file
    is: why it cannot be read, or where it is not text in this encoding and what to do.
    """
    codec = codecs.getincrementaldecoder(encoding)()
    begun, held, offset, place, last = False, "", 0, (1, 1), b""
    with reading(path, what), path.open("rb") as file:
        while True:
            raw, state = file.read(BLOCK_BYTES), codec.getstate()
            if digest is not None:
                digest.update(raw)
            try:
                text = held + codec.decode(raw, final=not raw)
            except UnicodeError as error:
                if not isinstance(error, UnicodeDecodeError) or "BOM" in error.reason:  # since Python 3.13 it is one
                    raise _refusal(path, what, encoding, raw, "no byte-order mark") from None
                codec.setstate(state)
                first = len(raw) - len(error.object)  # below 0 where bytes of the block before were held back
                before = held + codec.decode(raw[: max(0, first + error.start)])
                line, column = _after(place, _unified(before if begun else before.removeprefix("\ufeff")))
                spot = f"byte 0x{error.object[error.start]:02x} at line {line}, column {column} "
                spot += f"(offset {offset + first + error.start})"
                around, start = (error.object, error.start) if raw else (last, len(last) + first + error.start)
                raise _refusal(path, what, encoding, around, spot, start) from None
            if not begun and text:
                begun, text = True, text.removeprefix("\ufeff")
            held = "\r" if raw and text.endswith("\r") else ""  # LF may follow
            text = _unified(text.removesuffix(held))
            if "\0" in text:
                raise _refusal(path, what, encoding, raw, "a zero byte")
            yield text
            if not raw:
                return
            offset, place, last = offset + len(raw), _after(place, text), raw


def _unified(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _after(place: tuple[int, int], text: str) -> tuple[int, int]:
    """The line and column, counted from 1, after a text that begins at `place`."""
    line, column = place
    ends = text.count("\n")
    return (line + ends, len(text) - text.rfind("\n")) if ends else (line, column + len(text))


def _refusal(path: Path, what: str, encoding: str, raw: bytes, spot: str, start: int | None = None) -> UserError:
    """The error about a file that is not text in an encoding, as bytes `raw` of it show, with the way on.

    `spot` says what is wrong with them; `start` is the place in them of a byte that cannot be decoded.
    """
    name, file = codecs.lookup(encoding).name.removesuffix("-sig"), repr(str(path))
    wanted = "UTF-8" if name == "utf-8" else encoding
    for magic, kind, fix in PACKED:
        if raw.startswith(magic):
            return UserError(f"{what} wants a text file, got {kind}, {file}: {fix}")
    if start is not None and name.startswith(("utf-16", "utf-32")):
        return UserError(f"{what} wants {wanted}, got {spot} of {file}: there it is damaged, or of another encoding")
    if wide := _wide_encoding(raw):
        return UserError(f"{what} wants {wanted}, got {wide[:6].upper()} in {file}: {_way_on(what, wide)}")
    if b"\0" in raw:
        return UserError(f"{what} wants a text file, got the binary file {file}")
    if name != "utf-8" and _decoded(raw[:WINDOW], "utf-8") is not None:
        advice = "it is UTF-8: leave data.encoding out"
    else:
        advice = _advice(what, name, raw, start or 0)
    return UserError(f"{what} wants {wanted}, got {spot} of {file}; {advice}")


def _advice(what: str, encoding: str, raw: bytes, start: int) -> str:
    """Advise on a byte that an encoding does not have; another encoding is named only where it is plain."""
    low = max(0, start - WINDOW)
    around = raw[low : start + WINDOW]
    text = around.decode("utf-8", "replace")
    if encoding == "utf-8" and len(re.findall(r"[^\x00-\x7f\ufffd]", text)) >= text.count("\ufffd"):
        fix = "iconv -c -f utf-8 -t utf-8 FILE > NEW"
        return f"what is around it is UTF-8: mend that place, or leave such bytes out with: {fix}"
    word = _read_in_cp1252(around, start - low)
    if word and encoding != "cp1252":
        return (
            f"in cp1252, Windows' encoding of Western European languages, it reads {word!r}: if that is right, "
            f"{_way_on(what, 'cp1252')}"
        )
    return (
        "its bytes do not show which encoding it has: `file -i FILE` guesses it, the program that wrote it knows it; "
        f"then {_way_on(what, 'NAME')}"
    )


def _way_on(what: str, encoding: str) -> str:
    if what == "data.path":
        return f"give --data.encoding {encoding}"
    name = encoding.replace("-le", "le").replace("-be", "be")  # as iconv spells them
    return f"convert it with: iconv -f {name} -t utf-8 FILE > NEW"


def _wide_encoding(raw: bytes) -> str | None:
    """The UTF-16 or UTF-32 that bytes are, by their byte-order mark or their zero bytes; None for any other file."""
    for mark, name in MARKS:
        if raw.startswith(mark):
            return name
    sample = raw[:WINDOW]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if not even + odd:
        return None
    names = ["utf-32-le", "utf-32-be"]
    if 4 * (even + odd) >= len(sample) or not _is_text((_decoded(sample, "utf-8") or "").replace("\0", "")):
        names.append("utf-16-le" if odd > even else "utf-16-be")
    return next((name for name in names if _is_text(_decoded(sample, name))), None)


def _decoded(raw: bytes, encoding: str) -> str | None:
    """Bytes, cut off anywhere, in an encoding; None where they have none."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(raw)
    except UnicodeDecodeError:
        return None


def _is_text(text: str | None) -> bool:
    """True if nearly all characters can be printed or are white space, and none is zero."""
    if not text or "\0" in text:
        return False
    return 50 * sum(not (char.isprintable() or char.isspace()) for char in text) <= len(text)


def _read_in_cp1252(raw: bytes, at: int) -> str | None:
    """The word around a byte, read in cp1252; None where the bytes do not look like a Western European text in it."""
    try:
        text = raw.decode("cp1252")
    except UnicodeDecodeError:
        return None
    hungarian = {"õ", "û"} <= set(text)  # its ő and ű in ISO 8859-2; no Western language has both
    if hungarian or UNLIKELY.search(text) or not LIKELY.search(text):
        return None
    word = next((found for found in re.finditer(r"\S+", text) if found.end() > at), None)
    return text[max(word.start(), at - 20) : min(word.end(), at + 20)] if word else None
