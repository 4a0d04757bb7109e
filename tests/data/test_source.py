"""Reading the user's file, the bundled names, and named sets from a server on this machine."""

import gc
import hashlib
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlm.config import DataConfig
from jaxlm.data import source
from jaxlm.data.source import NamedSet, fetch, read, read_text
from jaxlm.errors import UserError, near_path

BOM = b"\xef\xbb\xbf"
BODY = "emma\nzoë\n".encode()


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"emma\nolivia\n", "emma\nolivia\n"),
        (b"emma", "emma"),
        (BOM + b"emma\nava", "emma\nava"),
        (b"emma\r\nava\r\n", "emma\nava\n"),
        (BOM + b"emma\r\nava", "emma\nava"),
        (b"\n\nemma\n\n \nava\n\n", "\n\nemma\n\n \nava\n\n"),
        ("Zoë\nJosé\nNaïve".encode(), "Zoë\nJosé\nNaïve"),
        (b"o'brien\nd'arcy", "o'brien\nd'arcy"),
        (b"mary ann\n  two  spaces ", "mary ann\n  two  spaces "),
        (b"route 66\n3.14\na.b.c", "route 66\n3.14\na.b.c"),
        (b"ava\nava\nava\n", "ava\nava\nava\n"),
        (b"a\tb\rc\r", "a\tb\nc\n"),
        ("日本\n한국\n😀".encode(), "日本\n한국\n😀"),
    ],
    ids=lambda value: repr(value)[:24] if isinstance(value, bytes) else "",
)
def test_a_text_file_is_read_as_it_is_with_lf(tmp_path, raw, text):
    path = tmp_path / "words.txt"
    path.write_bytes(raw)
    assert read(DataConfig(path=str(path))) == text


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip), st.booleans())
def test_any_text_with_or_without_bom_comes_back_with_lf(tmp_path_factory, text, bom):
    path = tmp_path_factory.mktemp("any") / "words.txt"
    path.write_bytes((BOM if bom or text.startswith("\ufeff") else b"") + text.encode())
    assert read_text(path, "data.path") == text.replace("\r\n", "\n").replace("\r", "\n")


def fails(path, match):
    with pytest.raises(UserError, match=match) as caught:
        read(DataConfig(path=str(path)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_file_is_named_with_its_nearest_sibling(tmp_path):
    (tmp_path / "names.txt").write_text("emma\n")
    message = fails(tmp_path / "nmaes.txt", "^data.path '.*nmaes.txt' does not exist")
    assert message.endswith(f" (did you mean {str(tmp_path / 'names.txt')!r}?)")


def test_a_missing_file_with_nothing_near_has_no_hint(tmp_path):
    (tmp_path / "zzz.bin").write_text("emma\n")
    assert fails(tmp_path / "names.txt", "does not exist").endswith("does not exist")
    assert fails(tmp_path / "nowhere" / "names.txt", "does not exist").endswith("does not exist")


def test_a_file_that_is_there_is_not_its_own_hint(tmp_path):
    (tmp_path / "names.txt").write_text("emma\n")
    assert near_path(tmp_path / "names.txt") == ""


def test_a_directory_is_refused(tmp_path):
    fails(tmp_path, "^data.path wants a text file, got the directory")


@pytest.mark.parametrize("raw", [b"", b"\n", b" \t\r\n\n  ", BOM, BOM + b"\r\n", "\u00a0\u2003\n".encode()])
def test_an_empty_or_blank_file_is_refused(tmp_path, raw):
    path = tmp_path / "blank.txt"
    path.write_bytes(raw)
    fails(path, "^data.path wants text, got nothing but white space in '.*blank.txt'")


@pytest.mark.parametrize(
    "raw",
    [b"\0", b"emma\n\0ava", b"ava\n" * 20_000 + b"\0", b"\x89PNG\r\n\x1a\n\0\0\0"],
)
def test_a_binary_file_is_refused(tmp_path, raw):
    path = tmp_path / "picture.png"
    path.write_bytes(raw)
    fails(path, "^data.path wants a text file, got the binary file '.*picture.png'")


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (
            b"emma\njos\xe9\nava\n",
            "wants UTF-8, got byte 0xe9 at line 2, column 4 .*; in cp1252, .*--data.encoding cp1252$",
        ),
        (b"emma\n\xc3\n", "wants UTF-8, got byte 0xc3 at line 2, column 1 .*give --data.encoding NAME$"),
        ("emma\n".encode("utf-16"), "wants UTF-8, got UTF-16 in .*: give --data.encoding utf-16$"),
    ],
)
def test_a_text_in_another_encoding_is_refused_with_the_setting(tmp_path, raw, told):
    path = tmp_path / "latin.txt"
    path.write_bytes(raw)
    fails(path, f"^data.path {told}")


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig", "UTF8"])
def test_a_text_is_read_in_the_encoding_given(tmp_path, encoding):
    path = tmp_path / "words.txt"
    path.write_bytes("zoë\r\nit’s\r\n".encode(encoding))
    assert read(DataConfig(path=str(path), encoding=encoding)) == "zoë\nit’s\n"


@pytest.mark.parametrize(
    ("name", "hint"), [("utf-61", "did you mean 'utf_16'"), ("hex", "hex"), ("windows1252", "1252"), ("\0", "as utf-8")]
)
def test_an_encoding_that_python_does_not_have_is_refused(name, hint):
    with pytest.raises(UserError, match=rf"^data.encoding wants an encoding that Python knows, got .*{hint}") as caught:
        DataConfig(path="a.txt", encoding=name)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission_is_refused(tmp_path):
    path = tmp_path / "secret.txt"
    path.write_text("emma\n")
    path.chmod(0)
    fails(path, "^data.path '.*secret.txt' cannot be read: Permission denied")


def test_what_the_system_cannot_open_is_refused_with_its_reason(tmp_path):
    loop = tmp_path / "loop.txt"
    loop.symlink_to(loop)
    fails(loop, "^data.path '.*loop.txt' cannot be read: Too many levels of symbolic links")
    (tmp_path / "file").write_text("emma\n")
    fails(tmp_path / "file" / "names.txt", "cannot be read: Not a directory")


def test_the_bundled_names_need_no_file():
    lines = read(DataConfig()).split("\n")
    names = [line for line in lines if line]
    assert len(names) == 32_469
    assert {char for name in names for char in name} == set("abcdefghijklmnopqrstuvwxyz")


def test_the_bundled_names_are_the_published_ones(shared_data):
    assert read(DataConfig()) == (shared_data / "names" / "ssa_2017.txt").read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "file"), [("makemore", "names/makemore_names.txt"), ("tinyshakespeare", "shakespeare/tinyshakespeare.txt")]
)
def test_the_pinned_hashes_are_those_of_the_published_files(shared_data, name, file):
    assert hashlib.sha256((shared_data / file).read_bytes()).hexdigest() == source.NAMED_SETS[name].sha256


class Server(ThreadingHTTPServer):
    """Answers every request with `body`, announces `announced` bytes, and runs `halfway` between the halves."""

    body = BODY
    status = 200
    announced: int | None = None
    asked = 0

    def halfway(self):
        pass


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        self.server.asked += 1
        body = self.server.body
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(self.server.announced or len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])
        self.wfile.flush()
        self.server.halfway()
        self.wfile.write(body[len(body) // 2 :])

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def named(server, tmp_path, monkeypatch):
    """The set "makemore" as this server has it, and a cache of its own."""
    named = NamedSet("makemore", f"http://127.0.0.1:{server.server_port}/n.txt", hashlib.sha256(BODY).hexdigest())
    monkeypatch.setitem(source.NAMED_SETS, "makemore", named)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return named


def test_a_named_set_is_downloaded_once(server, named, tmp_path):
    config = DataConfig(name="makemore")
    assert read(config) == BODY.decode()
    assert read(config) == BODY.decode()
    assert server.asked == 1
    assert [path.name for path in (tmp_path / "jaxlm").iterdir()] == ["makemore.txt"]


def test_the_users_own_file_is_read_instead_of_a_named_set(server, named, tmp_path):
    (tmp_path / "own.txt").write_text("ava\n")
    assert read(DataConfig(path=str(tmp_path / "own.txt"))) == "ava\n"
    assert server.asked == 0


def test_a_damaged_copy_is_downloaded_again(server, named, tmp_path):
    (tmp_path / "makemore.txt").write_bytes(BODY[:-3])
    assert fetch(named, tmp_path).read_bytes() == BODY
    assert server.asked == 1


def test_the_file_appears_only_when_it_is_whole(server, named, tmp_path):
    seen = []
    server.halfway = lambda: seen.append((tmp_path / "makemore.txt").exists())
    assert fetch(named, tmp_path).read_bytes() == BODY
    assert seen == [False]


def refused(named, cache, match):
    with pytest.raises(UserError, match=match) as caught:
        fetch(named, cache)
    assert "--data.path FILE" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_hash_is_refused_and_leaves_nothing(server, named, tmp_path):
    server.body = b"<html>not what was asked for</html>"
    got = hashlib.sha256(server.body).hexdigest()[:12]
    refused(named, tmp_path / "cache", f"data.name makemore wants sha256 {named.sha256[:12]}…, got {got}…")
    assert not list(tmp_path.rglob("*"))


def test_a_download_that_breaks_off_is_refused_and_leaves_nothing(server, named, tmp_path):
    server.announced = len(BODY) + 100
    refused(named, tmp_path / "cache", "data.name makemore cannot be downloaded from http://127.0.0.1")
    assert not list(tmp_path.rglob("*"))


def test_an_answer_that_is_not_the_file_is_refused_and_its_connection_closed(server, named, tmp_path):
    server.status = 404
    refused(named, tmp_path, "data.name makemore cannot be downloaded from http://127.0.0.1.*Not Found")
    gc.collect()


def test_without_a_network_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    named = NamedSet("makemore", f"http://127.0.0.1:{port}/n.txt", "0" * 64)
    refused(
        named, tmp_path, r"cannot be downloaded from .*Connection refused.*; get the file yourself and give it with"
    )


def test_a_download_that_cannot_be_kept_is_refused_and_leaves_nothing(named, tmp_path):
    (tmp_path / "makemore.txt").mkdir()
    refused(named, tmp_path, "data.name makemore cannot be kept in")
    assert [path.name for path in tmp_path.iterdir()] == ["makemore.txt"]
