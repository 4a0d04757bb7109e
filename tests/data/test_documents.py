"""Documents out of files: what is one, in every format, and that no cut loses or changes anything."""

import gzip
import json

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from jaxlm.config import PrepareConfig
from jaxlm.data import documents, files
from jaxlm.errors import UserError

DOCUMENTS = ["One line.", "Two\nlines.", "Three\n\nparts, ünïcode 𝄞.", "x"]


def read(path, **settings):
    """The documents of a file, put together from their fragments, with the head of each."""
    found, text = [], ""
    for unit in files.units_of(files.find_files([path])):
        for span in unit:
            for fragment in documents.fragments_of(span, PrepareConfig(**settings)):
                text += fragment.text
                if fragment.ends:
                    found.append((text, fragment.head))
                    text = ""
    assert text == ""
    return found


def texts(path, **settings):
    return [text for text, _ in read(path, **settings)]


@pytest.fixture
def small(monkeypatch):
    """Units, blocks and looks of a few bytes: every file is cut many times."""
    monkeypatch.setattr(files, "UNIT_BYTES", 7)
    monkeypatch.setattr(files, "LOOK", 5)
    monkeypatch.setattr(files, "OVERLAP", 4)
    monkeypatch.setattr(documents, "BLOCK", 4)
    monkeypatch.setattr(documents, "HEAD", 3)


def test_a_txt_file_is_a_document_or_its_lines_or_its_paragraphs(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\ntwo\r\n \t\r\n\nthree\n".encode())
    assert texts(path) == ["one\ntwo\n \t\n\nthree\n"]
    assert texts(path, document="lines") == ["one", "two", "three"]
    assert texts(path, document="blank-lines") == ["one\ntwo", "three"]


def test_documents_of_white_space_are_left_out(tmp_path):
    for name, text in {"a.txt": " \n\t\n", "b.txt": "b", "c.txt": ""}.items():
        (tmp_path / name).write_text(text)
    assert texts(tmp_path) == ["b"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json.gz", "a.jsonl.zst", "a.parquet"])
def test_documents_of_every_format(name, tmp_path):
    path = tmp_path / name
    lines = "".join(json.dumps({"n": 1, "body": text}) + "\n" for text in DOCUMENTS).encode()
    if name.endswith(".zst"):
        frame = pytest.importorskip("zstandard").ZstdCompressor().compress
        path.write_bytes(frame(lines[:50]) + frame(lines[50:]))
    elif name.endswith(".parquet"):
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table({"body": [*DOCUMENTS, None]}), path, row_group_size=2)
    else:
        path.write_bytes(gzip.compress(lines, mtime=0) if name.endswith(".gz") else lines)
    assert texts(path, field="body") == DOCUMENTS


@pytest.mark.parametrize("kind", ["lines", "blank-lines", "file"])
def test_cuts_change_no_document(kind, tmp_path_factory, small):
    path = tmp_path_factory.mktemp("cuts") / "a.txt"

    @given(st.text(st.sampled_from(" \n\nabé𝄞"), max_size=60))
    @example("𝄞" * 30)
    @example("ab ab\n" * 9)
    @settings(max_examples=60)
    def same(text):
        assume("    " not in text and (kind != "file" or text.strip()))  # blanks that fill a block count as text
        path.write_text(text, "utf-8", newline="")
        if kind == "file":
            expected = [text]
        elif kind == "lines":
            expected = text.split("\n")
        else:
            lines = [line if line.strip() else "" for line in text.split("\n")]
            expected = [part.strip("\n") for part in "\n".join(lines).split("\n\n")]
        expected = [part for part in expected if part.strip()]
        assert read(path, document=kind) == [(part, part[:3]) for part in expected]

    same()


def test_a_document_is_cut_after_a_line_or_before_a_blank(monkeypatch):
    monkeypatch.setattr(documents, "BLOCK", 12)

    def cut(text):
        return [part.text for part in documents._documents(iter([(text, True)]))]

    assert cut("one two\nthree\n four five") == ["one two\n", "three\n four", " five"]
    assert cut("seven eight nine ten") == ["seven eight nine", " ten"]
    assert "".join(cut("a" * 30)) == "a" * 30


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"gr\xfc\xdfe", ["wants UTF-8, got byte 0xfc", "iconv"]),
        ("a.txt", "né".encode("utf-16-le"), ["wants UTF-8"]),
        ("a.txt", b"a\0b", ["zero byte"]),
        ("a.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', ["'text' is a string", '{"txt": "b"}', "--field"]),
        ("a.jsonl", b"[1]\n", ["JSON object"]),
        ("a.txt.gz", gzip.compress(b"some text " * 99, mtime=0)[:-9], ["damaged or cut off"]),
        ("a.txt.gz", b"no gzip", ["cannot be read"]),
        ("a.parquet", b"PAR1 but not one", ["cannot be read as Parquet"]),
    ],
)
def test_a_file_that_cannot_be_read_is_named(name, content, words, tmp_path):
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        texts(tmp_path / name)
    for word in [name, *words]:
        assert word in str(error.value)


def test_a_zstd_file_that_is_cut_off_is_refused(tmp_path):
    path = tmp_path / "a.txt.zst"
    path.write_bytes(pytest.importorskip("zstandard").ZstdCompressor().compress(b"some text " * 9999)[:-9])
    with pytest.raises(UserError, match=r"a\.txt\.zst.*cut off"):
        texts(path)


def test_files_are_found_below_directories_and_by_patterns_once(tmp_path):
    for name in ("b.txt", "a.txt.gz", "sub/c.jsonl", "sub/notes.md", "d.TXT"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = files.find_files([tmp_path / "b.txt", tmp_path / "*.txt", tmp_path])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["b.txt", "a.txt.gz", "d.TXT", "sub/c.jsonl"]


def test_paths_that_give_no_file_are_refused_by_name(tmp_path):
    (tmp_path / "notes.md").write_text("x")
    for path, words in {"notes.md": "files named .txt", "*.txt": "no file is named", "nots.md": "did you mean"}.items():
        with pytest.raises(UserError, match=words):
            files.find_files([tmp_path / path])
    with pytest.raises(UserError, match="has no files named"):
        files.find_files([tmp_path])
    with pytest.raises(UserError, match="got none"):
        files.find_files([])
