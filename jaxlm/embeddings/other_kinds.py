"""Files that are no vectors we read, named for what they are, with the way on."""

import zipfile
from pathlib import Path

from jaxlm.embeddings.text import width_of
from jaxlm.errors import UserError

LONGEST_LINE = 2**20
"""Longest first line in bytes; a file without a line end within this many is not a table of vectors."""
HEAD = 512
"""Bytes at the start of a file that tell its kind."""
LINES = "write its words and vectors as lines `word number ... number`"
UNPACK = "unpack it, and give the file of vectors that is in it"
PACK_AGAIN = "unpack it (or pack it with gzip, which is read as it is)"
GENSIM = "save_word2vec_format('vectors.bin', binary=True)"
KINDS: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"PK\x03\x04", "a zip archive", UNPACK),
    (4, b"1AY&SY", "packed with bzip2", PACK_AGAIN),
    (0, b"\xfd7zXZ\0", "packed with xz", PACK_AGAIN),
    (0, b"\x28\xb5\x2f\xfd", "packed with zstd", PACK_AGAIN),
    (0, b"\x04\x22\x4d\x18", "packed with lz4", PACK_AGAIN),
    (0, b"\x5d\0\0", "packed with lzma", PACK_AGAIN),
    (0, b"\x1f\x9d", "packed with compress", PACK_AGAIN),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", UNPACK),
    (257, b"ustar", "a tar archive", UNPACK),
    (
        0,
        b"\xba\x16\x4f\x2f",
        "a fastText model",
        "take the .vec file that comes with it, or write one in Python: "
        f"gensim.models.fasttext.load_facebook_vectors(FILE).{GENSIM}",
    ),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", LINES),
    (
        0,
        b"\x93NUMPY",
        "a NumPy array without words",
        f"if gensim wrote it, load the file beside it in Python: gensim.models.KeyedVectors.load(FILE).{GENSIM}",
    ),
    (0, b"PAR1\x15", "a Parquet file", LINES),
    (0, b"ARROW1\0\0", "an Arrow file", LINES),
    (0, b"SQLite format 3\0", "an SQLite database", LINES),
    (0, b"%PDF-", "a PDF document", "give a file of vectors"),
    (0, b"\xff\xfe", "text in UTF-16", "write it in UTF-8: iconv -f UTF-16 -t UTF-8 FILE > vectors.txt"),
    (0, b"\xfe\xff", "text in UTF-16", "write it in UTF-8: iconv -f UTF-16 -t UTF-8 FILE > vectors.txt"),
)
"""Place and bytes of a signature, the kind of file that has it, and how vectors are had from it."""
WANTED = "wants word2vec's text or binary format or GloVe's text, gzipped or not"


def refuse_other_kinds(head: bytes, path: Path, name: str) -> None:
    """Raise UserError that names the kind of a file, if its first bytes are the signature of one that is not read."""
    for place, signature, kind, way_on in KINDS:
        if head[place : place + len(signature)] == signature:
            if signature == b"PK\x03\x04":
                kind, way_on = _kind_of_zip(path) or (kind, way_on)
            raise UserError(f"{name} is {kind}: {way_on}")
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise UserError(
            f"{name} is a pickle, which may run code and is never opened here: if gensim wrote it, convert it in "
            f"Python by gensim.models.KeyedVectors.load(FILE).{GENSIM}"
        )
    if head[4:9] == b"\0\0\0\0{":
        raise UserError(f"{name} is a safetensors file, which has no words: write lines `word number ... number`")


def refuse_first_line(line: bytes, name: str) -> None:
    """Raise UserError if a file's first line is one that no format of vectors begins with."""
    fields = line.split()
    if line[:2] in (b'{"', b"[{", b"[[", b'["') or line.strip() in (b"{", b"["):
        raise UserError(f"{name} is JSON: {LINES}")
    for_each = fields[:-1] if len(fields) > 1 else [field[:-1] for field in fields]
    if any(all(sign in field for field in for_each) for sign in (b",", b";")):
        raise UserError(f"{name} is a table with commas or semicolons: put blanks or tabs between its fields")
    if b"\r" in line and not line.endswith(b"\n"):
        raise UserError(f"{name} has the line ends of old Macs (CR alone): tr '\\r' '\\n' < FILE > vectors.txt")
    if b"\0" in line:
        raise UserError(f"{name} {WANTED}, got a binary file of another kind, which begins with {line[:20]!r}")
    if width_of(line) < 1 or len(line) == LONGEST_LINE:
        raise UserError(
            f"{name} {WANTED} (line 1: how many words, and how many numbers each; or a word and its numbers), got "
            f"{line[:40]!r}"
        )


def _kind_of_zip(path: Path) -> tuple[str, str] | None:
    """Name the program that reads a zip archive, by its entries, and the way on; None for any other archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return None
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive (.npz)", LINES
    if any(name.endswith("data.pkl") for name in names):
        return "a PyTorch checkpoint", LINES
    files = [name for name in names if not name.endswith("/")]
    return (f"a zip archive of {', '.join(files[:3])}{', ...' * (len(files) > 3)}", UNPACK) if files else None
