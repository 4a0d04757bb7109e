"""Files of vectors round-trip, and errors name the place of damage."""

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm import Embeddings, UserError
from jaxlm.embeddings import binary, files, text

NAMES = ["x.txt", "x.vec", "x.bin", "x.glove.txt", "x.txt.gz", "x.bin.gz", "x.glove.txt.gz"]
WORDS = ("the", "naïve", "日本", "</s>", "12", "a\tb", "\u00a0")


def floats(*rows):
    return np.array(rows, np.float32)


F = floats(1, 2).tobytes()


def some(words=WORDS, width=3):
    vec_VE = np.random.default_rng(0).standard_normal((len(words), width)).astype(np.float32)
    return Embeddings(words, vec_VE)


def assert_same(a, b):
    assert a.words == b.words
    np.testing.assert_array_equal(a.vec_VE, b.vec_VE)


@pytest.mark.parametrize("name", NAMES)
def test_every_format_gives_the_same_back(tmp_path, name):
    table = some()
    table.save(tmp_path / name)
    assert_same(Embeddings.load(tmp_path / name), table)
    assert (tmp_path / name).read_bytes()[:2] == (files.GZIP_MAGIC if name.endswith(".gz") else b"7 3\n"[:2]) or (
        "glove" in name
    )
    assert [path.name for path in tmp_path.iterdir()] == [name]


word = st.text(st.characters(exclude_characters=" \n\0", exclude_categories=("Cs", "Cc")), min_size=1, max_size=5)
number = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_words_and_numbers_come_back(tmp_path_factory, data):
    words = tuple(data.draw(st.lists(word, min_size=1, max_size=6, unique=True)))
    width = data.draw(st.integers(3, 5))
    rows = st.lists(number, min_size=width, max_size=width)
    vec_VE = np.array(data.draw(st.lists(rows, min_size=len(words), max_size=len(words))), np.float32)
    path = tmp_path_factory.mktemp("vectors") / "x"
    for format in ("word2vec", "binary", "glove"):
        Embeddings(words, vec_VE).save(path, format)
        assert_same(Embeddings.load(path), Embeddings(words, vec_VE))


def test_few_floats_that_are_letters_are_no_text(tmp_path):
    """The four bytes of the float32 0.7 are the letters "333?"."""
    table = Embeddings(("0",), np.full((1, 3), 0.7, np.float32))
    table.save(tmp_path / "x.bin")
    assert_same(Embeddings.load(tmp_path / "x.bin"), table)


def test_text_gives_every_float32_back(tmp_path):
    bits = np.random.default_rng(1).integers(0, 2**32, 60_000, dtype=np.uint32)
    number = bits.view(np.float32)
    number = np.concatenate([number[np.isfinite(number)], floats(0, 1e-45, 3.4028235e38, 1 / 3)])
    vec_VE = number[: len(number) // 10 * 10].reshape(-1, 10)
    table = Embeddings(tuple(map(str, range(len(vec_VE)))), vec_VE)
    table.save(tmp_path / "x.txt")
    np.testing.assert_array_equal(Embeddings.load(tmp_path / "x.txt").vec_VE.view(np.uint32), vec_VE.view(np.uint32))


@pytest.mark.parametrize("name", ["x.txt", "x.bin", "x.glove.txt"])
def test_files_larger_than_a_block_are_put_together(tmp_path, monkeypatch, name):
    monkeypatch.setattr(text, "TEXT_BLOCK_BYTES", 50)
    monkeypatch.setattr(binary, "READ_BYTES", 50)
    monkeypatch.setattr(text, "ROWS_AT_ONCE", 3)
    table = some(tuple(f"word{i}" for i in range(40)), 7)
    table.save(tmp_path / name)
    assert_same(Embeddings.load(tmp_path / name), table)


def test_what_other_tools_write_is_read(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"2 2\nking 1.5 -2 \nqueen 1e-3 .25 \n\n")  # word2vec's own text has a blank at each line's end
    assert_same(Embeddings.load(path), Embeddings(("king", "queen"), floats([1.5, -2], [1e-3, 0.25])))
    path.write_bytes(b"the 1 2\r\n\r\nof 3 4")
    assert_same(Embeddings.load(path), Embeddings(("the", "of"), floats([1, 2], [3, 4])))
    path.write_bytes(b"the 1 2\n. . . 3 4\nat name@domain.com 5 6\n")  # as glove.840B has
    assert Embeddings.load(path).words == ("the", ". . .", "at name@domain.com")
    one, two = floats(1, 2).tobytes(), floats(3, 4).tobytes()
    path.write_bytes(b"2 2\nking " + one + b"\nqueen " + two + b"\n")  # word2vec's own binary ends each with a line end
    assert_same(Embeddings.load(path), Embeddings(("king", "queen"), floats([1, 2], [3, 4])))


@pytest.mark.parametrize(
    "head", [b"0.25 0.5 ", b"\x0a\x0b5\x80", b"9\n\x00\x00", " Se\u0680 ".encode(), b">" * 37 + b"\xb4>>"]
)
def test_binary_is_distinguished_from_text_by_the_bytes_after_the_first_word(tmp_path, head):
    raw = (head + b"\x3e" * 40)[:40]
    (tmp_path / "x").write_bytes(b"2 10\nking " + raw + b"queen " + b"\xff\xff\x7f\x3f" * 10)
    if head == b"0.25 0.5 ":
        with pytest.raises(UserError):  # forty printable bytes are text
            Embeddings.load(tmp_path / "x")
    else:
        assert Embeddings.load(tmp_path / "x").words == ("king", "queen")


def test_of_repeated_words_the_first_is_kept_and_the_others_are_logged(tmp_path):
    (tmp_path / "x").write_bytes(b"a 1 2\nb 3 4\na 5 6\nb 7 8\nc 9 0\n")
    logged: list[str] = []
    assert_same(
        Embeddings.load(tmp_path / "x", log=logged.append), Embeddings(("a", "b", "c"), floats([1, 2], [3, 4], [9, 0]))
    )
    (line,) = logged
    assert "has 2 words again (the first: 'a'); the first of each is kept" in line
    (tmp_path / "x").write_bytes(b"a 1 2\nb 3 4\na 5 6\n")
    Embeddings.load(tmp_path / "x", log=logged.append)
    assert logged[1].endswith("has 1 word again ('a'); the first of each is kept")


@pytest.mark.parametrize(
    "raw", [b"2 2\na 1 2\nb 3 4\n", b"a 1 2\nb 3 4\n", b"2 2\na " + F + b"b " + F], ids=["word2vec", "glove", "binary"]
)
def test_a_utf8_mark_before_the_table_is_passed_over(tmp_path, raw):
    (tmp_path / "plain").write_bytes(raw)
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbf" + raw)
    assert_same(Embeddings.load(tmp_path / "marked"), Embeddings.load(tmp_path / "plain"))
    assert Embeddings.load(tmp_path / "marked").words == ("a", "b")


@pytest.mark.parametrize("suffix", [".txt", ".bin", ".glove.txt"])
def test_a_first_word_that_begins_with_that_mark_keeps_it(tmp_path, suffix):
    vectors = Embeddings(("\ufeffa", "b"), floats([1, 2], [3, 4]))
    vectors.save(tmp_path / f"x{suffix}")
    assert_same(Embeddings.load(tmp_path / f"x{suffix}"), vectors)


def test_words_that_are_not_utf8_are_refused_or_repaired(tmp_path):
    for raw, place in ((b"a 1 2\nb\xe9 3 4\n", "line 2"), (b"2 2\na " + F + b"b\xe9 " + F, "word 2")):
        (tmp_path / "x").write_bytes(raw)
        with pytest.raises(
            UserError, match=rf"{place} wants UTF-8, got byte 0xe9 in the word b'b\\xe9': write it in UTF-8"
        ):
            Embeddings.load(tmp_path / "x")
        assert Embeddings.load(tmp_path / "x", errors="replace").words == ("a", "b\ufffd")
        assert Embeddings.load(tmp_path / "x", errors="ignore").words == ("a", "b")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"3 2\na 1 2\nb 1\nc 1 2\n", r"line 3 \('b'\) wants 2 numbers, got 1 \(sample"),
        (b"2 2\na 1 2\nb 1 2 3\n", r"line 3 \('b'\) wants 2 numbers, got 3 \(sample"),
        (b"2 2\na 1 2\nb 1 x\n", r"line 3 \('b'\) wants numbers, got 'x' \(sample"),
        (b"2 2\na 1 2\nb 1-2  \n", r"line 3 \('b'\) wants 2 numbers, got 1 \(sample"),
        (b"2 2\na 1-2 3\nb 1 2\n", r"line 2 \('a'\) wants numbers, got '1-2' \(sample"),
        (b"2 2\na 1 2\nb 1_0 2\n", r"line 3 \('b'\) wants numbers, got '1_0' \(sample"),
        (b"2 2\na  2\nb 1 2\n", r"line 2 \('a'\) wants 2 numbers, got 1 \(sample"),
        (b"2 2\na 1 2\nnew york 1 2\n", r"line 3 wants a word without blanks, got 'new york' \(sample"),
        (b"2 2\na 1 2\n 1 2\n", r"line 3 wants a word before its numbers, got a blank \(sample"),
        (b"3 2\na 1 2\nb 1 2\n", "line 1 promises 3 words, the file has 2$"),
        (b"1 2\na 1 2\nb 1 2\n", "line 1 promises 1 words, the file has 2$"),
        (b"2 2\na 1 2\nb nan 2\n", r"line 3 \('b'\) wants finite numbers, got 'nan' \(sample"),
        (b"a 1 2\nb 3 1e39\n", r"line 2 \('b'\) wants finite numbers, got '1e39'"),
        (b"a 1 2\nb 3\n", r"line 2 \('b'\) wants 2 numbers, got 1 \(sample"),
        (b"a 1 2\nb 3 4 5\n", r"line 2 \('b'\) wants 2 numbers, got 3 \(sample"),
        (b"0 2\n", "line 1 wants the numbers of words"),
        (b"", "wants at least one word, got none$"),
        (b"hello\n", "wants word2vec's text or binary .* got b'hello"),
        (b"\x89PNG\0\0 1 2", "wants word2vec's text .* binary file of another kind"),
        (b"3 2\na " + F + b"b " + F + b"c \0\0", "ends in word 3 of the 3 that line 1 promises$"),
        (b"3 2\na " + F + b"b " + F, "ends in word 3 of the 3"),
        (b"1 2\na " + F + b"b " + F, "goes on after the 1 words"),
        (b"2 2\na " + F + b"b" * 5000 + b" " + F, "word 2 wants a blank after it, got none in 4096 bytes$"),
        (b"2 2\na " + F + b"b\nc " + F, r"word 2 wants a word, got b'b\\nc': the file is damaged$"),
        (b"2 2\na " + F + b" " + F, "word 2 wants a word, got b''"),
        (b"1000000000 1000000000\na " + F * 2, "more than fit into memory$"),
        (gzip.compress(b"a 1 2\nb 3 4\n", mtime=0)[:-10], "is a damaged gzip file"),
    ],
)
def test_the_error_of_a_broken_file_names_the_place(tmp_path, raw, message):
    (tmp_path / "x").write_bytes(raw)
    with pytest.raises(UserError, match=message) as caught:
        Embeddings.load(tmp_path / "x")
    assert "\n" not in str(caught.value) and str(tmp_path / "x") in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    some().save(tmp_path / "vectors.txt")
    with pytest.raises(UserError, match=r"'.*vector.txt' does not exist \(did you mean '.*vectors.txt'\?\)"):
        Embeddings.load(tmp_path / "vector.txt")
    with pytest.raises(UserError, match="wants a file, got the directory"):
        Embeddings.load(tmp_path)


@pytest.mark.parametrize("bad", ["new york", "", "a\nb", "\ud800"])
@pytest.mark.parametrize("name", ["x.txt", "x.bin"])
def test_what_no_file_can_hold_is_refused_and_the_old_file_stays(tmp_path, bad, name):
    (tmp_path / name).write_text("old")
    with pytest.raises(UserError, match="wants words"):
        some(("a", bad)).save(tmp_path / name)
    assert (tmp_path / name).read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_an_unknown_suffix_and_a_missing_directory_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"'.*x.npy' wants a suffix that names its format: .txt"):
        some().save(tmp_path / "x.npy")
    with pytest.raises(UserError, match="cannot be written: No such file"):
        some().save(tmp_path / "none" / "x.bin")
