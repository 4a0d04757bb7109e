"""python -m jaxlm.server as a process: what it refuses, and its end on a signal."""

import http.client
import json
import re
import signal
import socket
from collections.abc import Iterator

import pytest

import jaxlm
from jaxlm.cli.server_command import parse_server, read_keys
from jaxlm.errors import UserError
from jaxlm.server.__main__ import names_of
from tests import processes
from tests.conftest import write_run


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "at least one run directory"),
        (["runs/x", "--batch", "6"], "--batch wants a power of 2, got 6: take 4"),
        (["runs/x", "--port", "70000"], "--port wants a number from 0 to 65535"),
        (["runs/x", "--timeout", "0"], "--timeout wants a number > 0"),
        (["runs/x", "--host", "0.0.0.0"], "--host 0.0.0.0 can be reached from other machines.*--api-key-file"),
        (["runs/x", "--host", "example.org"], "--host example.org can be reached from other machines"),
        (["runs/x", "--prot", "1"], "--prot is not a setting .did you mean --port"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_loaded(args, words):
    with pytest.raises(UserError, match=words):
        parse_server(args)


def test_settings_that_can_be():
    command = parse_server(["runs/a", "runs/b", "--host", "::1", "--batch", "64", "--no-warm-up", "--queue", "7"])
    assert [path.name for path in command.runs] == ["a", "b"] and command.is_local and not command.warm_up
    assert (command.limits.batch, command.limits.queue) == (64, 7)
    assert parse_server(["runs/a", "--host", "0.0.0.0", "--api-key-file", "x"]).is_local is False


def test_keys_are_the_lines_of_a_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text("\nthe-key-of-the-first\n  another-key-of-mine \n\n")
    assert read_keys(path) == ("the-key-of-the-first", "another-key-of-mine")
    path.write_text("\n")
    with pytest.raises(UserError, match="which has none"):
        read_keys(path)
    path.write_text("short\n")
    with pytest.raises(UserError, match="at least 16 ASCII characters, got one of 5"):
        read_keys(path)
    with pytest.raises(UserError, match=r"--api-key-file .* does not exist"):
        read_keys(tmp_path / "kyes")


def test_runs_are_named_by_their_directories(tmp_path):
    a, b, c = (tmp_path / name for name in ("x/gpt", "y/gpt", "x/lstm"))
    assert names_of((a, b, c)) == {str(a): a, str(b): b, "lstm": c}
    with pytest.raises(UserError, match="each run once"):
        names_of((a, a))


@pytest.fixture(scope="module")
def cli(tmp_path_factory) -> processes.Cli:
    return processes.cli(tmp_path_factory)


@pytest.fixture(scope="module")
def run(caches, cli) -> Iterator[str]:
    yield str(write_run(cli.base, jaxlm.CountsConfig(order=2), name="bigram", data={"kind": "stream"}))


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_after_the_requests_in_flight(cli, run, signum, code):
    process = cli.start("-m", "jaxlm.server", run, "--port", "0", "--batch", "1")
    assert process.stdout is not None
    lines: list[str] = []
    while not (lines and lines[-1].startswith("serving")):
        lines.append(process.stdout.readline())
        assert lines[-1], process.communicate()
    assert lines[0] == "bigram: compiling batches of 1\n"
    found = re.fullmatch(r"serving bigram on http://127\.0\.0\.1:(\d+)\n", lines[-1])
    assert found
    connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
    body = json.dumps({"prompt": "e", "max_tokens": 2000, "stream": True})
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    first = response.readline()
    process.send_signal(signum)
    events = [line for line in (first + response.read()).split(b"\n\n") if line]
    assert events[-1] == b"data: [DONE]" and b'"finish_reason":"length"' in events[-2], "it went on to its end"
    text = "".join(json.loads(event[6:])["choices"][0]["text"] for event in events[:-1])
    assert len(text) == 2000
    connection.close()
    done = processes.end(process)
    assert done.code == code, done
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_port_that_is_taken_is_said_in_a_line(cli, run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = cli.python("-m", "jaxlm.server", run, "--port", taken.getsockname()[1])
    processes.refused(done, "--port", "cannot be listened on: Address already in use")
