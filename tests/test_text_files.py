"""Users' text files: every line end and encoding, pieces of any size, and advice that fits where it is another one."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlm import text_files
from jaxlm.errors import UserError
from jaxlm.text_files import read_pieces

TEXTS = {
    "utf-8": "zoë\r\n日本\r😀\n\n\r\r\nend\r",
    "utf-8-sig": "zoë\r\n日本\r😀",
    "utf-16": "zoë\r\n日本\r😀\n\u0a0d\u0d0a\n",
    "utf-16-le": "emma\r\n\u0a0d\r",
    "utf-16-be": "emma\r\n\u0a0d\r",
    "utf-32": "zoë\r\n😀",
    "cp1252": "it’s\r\nnaïve\r–",
    "gb18030": "今天\r\n天气\r很好\n",
    "shift_jis": "ソ能\r\n表\rend",
    "iso2022_jp": "今日\r\nは",
}


def unified(text):
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read(path, encoding="utf-8", what="data.path"):
    return "".join(read_pieces(path, what, encoding))


def refused(tmp_path, raw, encoding="utf-8", what="data.path"):
    path = tmp_path / "my.txt"
    path.write_bytes(raw)
    with pytest.raises(UserError) as caught:
        read(path, encoding, what)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 2**22])
@pytest.mark.parametrize("encoding", TEXTS)
def test_a_text_in_pieces_of_any_size_is_the_text_with_lf(tmp_path, monkeypatch, encoding, size):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", size)
    path, raw = tmp_path / "my.txt", TEXTS[encoding].encode(encoding)
    path.write_bytes(raw)
    digest = hashlib.sha256()
    assert "".join(read_pieces(path, "data.path", encoding, digest)) == unified(TEXTS[encoding])
    assert digest.hexdigest() == hashlib.sha256(raw).hexdigest()


@given(st.text(st.sampled_from("\r\nab"), max_size=12), st.integers(1, 4))
def test_line_ends_are_those_of_universal_newlines(tmp_path_factory, text, size):
    path = tmp_path_factory.mktemp("ends") / "my.txt"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "BLOCK_BYTES", size)
        assert read(path) == path.read_text("utf-8")


@pytest.mark.parametrize("mark", ["utf-16", "utf-32"])
def test_a_wide_encoding_is_told_by_its_mark_and_by_its_zero_bytes(tmp_path, mark):
    for text in ("emma\r\nolivia\r\n", "привет мир\n" * 3, "今天天气很好。\n" * 3):
        told = refused(tmp_path, text.encode(mark))
        assert (
            told.startswith(f"data.path wants UTF-8, got {mark.upper()} in ") and f"give --data.encoding {mark}" in told
        )
        for order in ("-le", "-be"):
            assert f"give --data.encoding {mark}{order}" in refused(tmp_path, text.encode(mark + order))
            assert f"iconv -f {mark}{order[1:]} -t utf-8" in refused(
                tmp_path, text.encode(mark + order), what="--score"
            )


@pytest.mark.parametrize(
    "raw", [b"\0", b"emma\n\0ava", b"ava\n" * 20_000 + b"\0", b"\x89PNG\r\n\x1a\n\0\0\0", b"\x7fELF\0\1\2", bytes(99)]
)
def test_other_zero_bytes_are_of_a_binary_file(tmp_path, raw):
    assert refused(tmp_path, raw) == f"data.path wants a text file, got the binary file {str(tmp_path / 'my.txt')!r}"


def test_a_zero_byte_in_a_later_piece_is_of_a_binary_file_too(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 12)
    assert "binary file" in refused(tmp_path, b"good line\n" * 3 + b"bad \0\n")


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"\x1f\x8b\x08\0", "a gzip file"),
        (b"PK\3\4\x14\0", "a zip archive"),
        (b"%PDF-1.4\n%\xe2\xe3", "a PDF document"),
    ],
)
def test_what_people_take_for_text_is_named(tmp_path, raw, kind):
    assert f"wants a text file, got {kind}" in refused(tmp_path, raw)


@pytest.mark.parametrize(
    ("text", "encoding", "word"),
    [
        ("it’s\ndon’t\n", "cp1252", "it’s"),
        ("anna\njosé\n", "latin-1", "josé"),
        ("Öl für Äpfel – schön", "cp1252", "Öl"),
        ("“Hello” she said", "cp1252", "“Hello”"),
        ("un œuf, à l’œil", "cp1252", "œuf,"),
        ("un café", "latin-1", "café"),
    ],
)
def test_cp1252_is_offered_with_a_word_as_it_would_read(tmp_path, text, encoding, word):
    told = refused(tmp_path, text.encode(encoding))
    assert f"in cp1252, Windows' encoding of Western European languages, it reads {word!r}: if that is right" in told
    assert told.endswith("give --data.encoding cp1252")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("привет, как дела", "cp1251"),
        ("привет, как дела", "koi8-r"),
        ("καλημέρα κόσμε", "iso8859-7"),
        ("今天天气很好", "gb18030"),
        ("今日は良い天気", "shift_jis"),
        ("안녕하세요 여러분", "euc-kr"),
        ("zażółć gęślą jaźń, biały", "cp1250"),
        ("caffè, perché, crème", "cp437"),
        ("café, crème, it’s", "mac-roman"),
        ("başka ağaç ıslak", "cp1254"),
        ("árvíztűrő tükörfúrógép", "iso8859-2"),
        ("é", "latin-1"),
    ],
)
def test_no_encoding_is_named_where_the_bytes_do_not_show_it(tmp_path, text, encoding):
    told = refused(tmp_path, text.encode(encoding))
    assert "its bytes do not show which encoding it has: `file -i FILE` guesses it" in told
    assert told.endswith("then give --data.encoding NAME")


@pytest.mark.parametrize("size", [1, 4, 2**22])
@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (b"emma\njos\xe9\nava\n", "byte 0xe9 at line 2, column 4 (offset 8)"),
        (b"emma\r\n\r\nzo\xeb\r\n", "byte 0xeb at line 3, column 3 (offset 10)"),
        (b"emma\r\xe9", "byte 0xe9 at line 2, column 1 (offset 5)"),
        ("zoë\n日本 ".encode() + b"\xff", "byte 0xff at line 2, column 4 (offset 12)"),
        (b"emma\n\xc3", "byte 0xc3 at line 2, column 1 (offset 5)"),
        (b"\xef\xbb\xbfzo\xebx", "byte 0xeb at line 1, column 3 (offset 5)"),
    ],
)
def test_a_byte_that_is_not_utf8_is_shown_with_its_place(tmp_path, monkeypatch, raw, place, size):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", size)
    assert f"data.path wants UTF-8, got {place} of '{tmp_path}/my.txt'; " in refused(tmp_path, raw)


def test_a_text_that_is_utf8_but_for_a_byte_is_not_taken_for_another_encoding(tmp_path):
    text = "Ein schöner Tag für Äpfel.\n" * 5
    told = refused(tmp_path, text.encode() + b"caf\xe9\n" + text.encode())
    assert "byte 0xe9 at line 6, column 4" in told and "what is around it is UTF-8: mend that place" in told
    assert "cp1252" not in told
    told = refused(tmp_path, "naïve zoë\ncafé".encode()[:-1])
    assert "byte 0xc3 at line 2, column 4" in told and "what is around it is UTF-8" in told


@pytest.mark.parametrize(
    ("raw", "encoding", "told"),
    [
        ("zoë\n".encode(), "utf-16", "it is UTF-8: leave data.encoding out"),
        ("zoë\n".encode(), "ascii", "byte 0xc3 at line 1, column 3 (offset 2)"),
        ("emma\n".encode("utf-16-le"), "utf-16", "give --data.encoding utf-16-le"),
        ("emma\n".encode("utf-16") + b"a", "utf-16", "wants utf-16, got byte 0x61 at line 2, column 1 (offset 12)"),
        ("emma\n".encode("utf-16-be") + b"\0", "utf-16-be", "wants utf-16-be, got byte 0x00 at line 2, column 1"),
        (b"\xef\xbb\xbfjos\xe9 ", "utf-8-sig", "wants UTF-8, got byte 0xe9 at line 1, column 4 (offset 6)"),
        (b"ab\x81", "cp1252", "wants cp1252, got byte 0x81 at line 1, column 3 (offset 2)"),
        ("emma\n".encode("utf-16"), "cp1252", "wants cp1252, got UTF-16"),
    ],
)
def test_a_file_that_is_not_in_the_encoding_given_is_a_line(tmp_path, raw, encoding, told):
    assert told in refused(tmp_path, raw, encoding)
