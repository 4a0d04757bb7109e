"""Vectors as other people's programs write them: tabs, columns, bad rows, and files of other kinds."""

import bz2
import gzip
import io
import lzma
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from jaxlm import Embeddings, UserError

ROWS = [("king", (1.5, -2.0)), ("queen", (0.25, 1e-3)), ("water", (-1.0, 4.0))]


def written(tmp_path, raw):
    (tmp_path / "x").write_bytes(raw)
    return tmp_path / "x"


def assert_rows(table, rows):
    assert table.words == tuple(word for word, _ in rows)
    np.testing.assert_array_equal(table.vec_VE, np.array([vector for _, vector in rows], np.float32))


@pytest.mark.parametrize("header", [b"", b"3 2\n", b"3\t2\n", b"\n3 2\n"], ids=["none", "blank", "tab", "after a line"])
@pytest.mark.parametrize("ends", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize(
    "row", ["{} {} {}", "{}\t{}\t{}", "{}   {}  {}", "{}\t{} {}", "{}\t\t{}\t{}", "  {}  {}\t{} \t"], ids=repr
)
def test_blanks_and_tabs_separate_the_fields(tmp_path, header, ends, row):
    lines = [row.format(word, *vector).encode() for word, vector in ROWS]
    raw = (header + b"\n".join(lines) + b"\n").replace(b"\n", ends)
    assert_rows(Embeddings.load(written(tmp_path, raw)), ROWS)


def test_rows_may_be_separated_in_different_ways(tmp_path):
    assert_rows(Embeddings.load(written(tmp_path, b"king 1.5 -2\nqueen\t.25\t1e-3\nwater\t-1 4\n")), ROWS)


def test_words_with_blanks_between_tabs_are_words(tmp_path):
    raw = b"2 2\nking\t1\t2\nnew york\t3\t4\n"
    assert_rows(Embeddings.load(written(tmp_path, raw)), [("king", (1, 2)), ("new york", (3, 4))])


def test_a_first_word_may_have_blanks(tmp_path):
    raw = b"new york 1 2\nking 3 4\n"
    assert_rows(Embeddings.load(written(tmp_path, raw)), [("new york", (1, 2)), ("king", (3, 4))])


BAD = [
    (b"bad nan 1", r"line 2 \('bad'\) wants finite numbers, got 'nan'"),
    (b"bad 1 -inf", r"line 2 \('bad'\) wants finite numbers, got '-inf'"),
    (b"bad 1 1e39", r"line 2 \('bad'\) wants finite numbers, got '1e39'"),
    (b"bad 1", r"line 2 \('bad'\) wants 2 numbers, got 1"),
    (b"bad", r"line 2 \('bad'\) wants 2 numbers, got 0"),
    (b"bad 1 2 3", r"line 2 \('bad'\) wants 2 numbers, got 3"),
    (b"bad 1 x", r"line 2 \('bad'\) wants numbers, got 'x'"),
    (b"bad 1,5 2", r"line 2 \('bad'\) wants numbers with a decimal point, got '1,5'"),
    (b"b\xe9d 1 2", r"line 2 wants UTF-8, got byte 0xe9 in the word"),
]


@pytest.mark.parametrize(("row", "reason"), BAD, ids=lambda value: repr(value))
@pytest.mark.parametrize("tabs", [False, True])
def test_a_bad_row_is_named_or_left_out(tmp_path, row, reason, tabs):
    raw = b"king 1.5 -2\n" + row + b"\nwater -1 4\n"
    path = written(tmp_path, raw.replace(b" ", b"\t") if tabs else raw)
    with pytest.raises(UserError, match=rf"^[^\n]*{reason}[^\n]*--skip-bad-rows[^\n]*skip_bad_rows=True\)$"):
        Embeddings.load(path)
    logged: list[str] = []
    assert_rows(Embeddings.load(path, skip_bad_rows=True, log=logged.append), [ROWS[0], ROWS[2]])
    (line,) = logged
    assert "1 bad row is left out: line 2 " in line


@pytest.mark.parametrize("first", [b"bad 1", b"bad 1 2 3", b"bad x 1", b"bad nan 1"])
def test_a_first_row_may_be_the_bad_one(tmp_path, first):
    path = written(tmp_path, first + b"\nking 1.5 -2\nqueen .25 1e-3\nwater -1 4\n")
    with pytest.raises(UserError, match=r"line 1 \('bad'\) wants"):
        Embeddings.load(path)
    assert_rows(Embeddings.load(path, skip_bad_rows=True), ROWS)


def test_many_bad_rows_are_counted_and_the_first_are_named(tmp_path):
    raw = b"6 2\n" + b"".join(b"bad%d nan 1\n" % i for i in range(5)) + b"king 1.5 -2\n"
    logged: list[str] = []
    assert_rows(Embeddings.load(written(tmp_path, raw), skip_bad_rows=True, log=logged.append), ROWS[:1])
    (line,) = logged
    assert "5 bad rows are left out: line 2 ('bad0')" in line and "'bad2'" in line and "and 2 more" in line
    assert "'bad3'" not in line


def test_a_file_of_bad_rows_alone_is_refused(tmp_path):
    with pytest.raises(UserError, match="wants at least one word, got none that can be used"):
        Embeddings.load(written(tmp_path, b"a nan\nb nan\n"), skip_bad_rows=True)


def test_a_count_that_is_wrong_is_logged_where_rows_may_be_skipped(tmp_path):
    logged: list[str] = []
    table = Embeddings.load(written(tmp_path, b"5 2\nking 1.5 -2\n"), skip_bad_rows=True, log=logged.append)
    assert_rows(table, ROWS[:1])
    assert logged[0].endswith("line 1 promises 5 words, the file has 1") and len(logged) == 1


def test_bad_records_of_a_binary_file_are_left_out(tmp_path):
    values = [1.5, -2.0], [np.nan, 1.0], [3.0, 4.0], [-1.0, 4.0]
    words = b"king", b"bad", b"b\xe9d", b"water"
    raw = b"4 2\n" + b"".join(
        word + b" " + np.array(vector, "<f4").tobytes() + b"\n" for word, vector in zip(words, values, strict=True)
    )
    path = written(tmp_path, raw)
    logged: list[str] = []
    with pytest.raises(UserError, match=r"word 2 \('bad'\) wants finite numbers, got inf or nan .*--skip-bad-rows"):
        Embeddings.load(path)
    assert_rows(Embeddings.load(path, skip_bad_rows=True, log=logged.append), [ROWS[0], ROWS[2]])
    assert "2 bad rows are left out: word 2 ('bad')" in logged[0] and "word 3 wants UTF-8" in logged[0]


def archive(kind, **files):
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as packed:
            for name, content in files.items():
                packed.writestr(name, content)
    else:
        with tarfile.open(fileobj=file, mode="w") as packed:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                packed.addfile(info, io.BytesIO(content))
    return file.getvalue()


def arrays(**named):
    file = io.BytesIO()
    np.savez(file, **named)
    return file.getvalue()


def array():
    file = io.BytesIO()
    np.save(file, np.zeros((2, 2)))
    return file.getvalue()


TEXT = b"king 1.5 -2\n"
SAFE = b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (archive("zip", **{"glove.txt": TEXT}), "is a zip archive of glove.txt: unpack it"),
        (archive("zip", **{"model/data.pkl": TEXT}), "is a PyTorch checkpoint: "),
        (arrays(a=np.zeros(2)), "is a NumPy archive"),
        (array(), "is a NumPy array without words"),
        (archive("tar", **{"glove.txt": TEXT}), "is a tar archive: unpack it"),
        (gzip.compress(archive("tar", **{"glove.txt": TEXT}), mtime=0), "is a tar archive: unpack it"),
        (bz2.compress(TEXT), "is packed with bzip2: unpack it"),
        (lzma.compress(TEXT), "is packed with xz: unpack it"),
        (b"\x28\xb5\x2f\xfd" + TEXT, "is packed with zstd: unpack it"),
        (pickle.dumps({"king": [1.0]}), "is a pickle, .* gensim"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "is an HDF5 file"),
        (struct.pack("<ii", 793712314, 12) + bytes(50), "is a fastText model: take the .vec file"),
        (gzip.compress(struct.pack("<ii", 793712314, 12) + bytes(50), mtime=0), "is a fastText model"),
        (struct.pack("<Q", len(SAFE)) + SAFE, "is a safetensors file"),
        ("king 1.5 -2\n".encode("utf-16"), "is text in UTF-16: write it in UTF-8: iconv"),
        (b'{"king": [1.5, -2]}', "is JSON"),
        (b"word,x,y\nking,1.5,-2\n", "is a table with commas"),
        (b"king, 1.5, -2\n", "is a table with commas"),
        (b"king;1,5;-2,0\n", "is a table with commas or semicolons"),
        (b"2 2\rking 1.5 -2\rqueen 1 2\r", "has the line ends of old Macs"),
        (b"This is a text, not vectors.\n", "wants word2vec's text or binary format or GloVe's text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_of_another_kind_is_named(tmp_path, raw, kind):
    with pytest.raises(UserError, match=rf"^vectors '[^\n]*x' {kind}[^\n]*$"):
        Embeddings.load(written(tmp_path, raw))
