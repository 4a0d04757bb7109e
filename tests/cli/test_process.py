"""How commands end: exit codes, and a line for a mistake."""

import errno
import io
import os
import sys

import pytest

from jaxlm.cli.process import run_main, show
from jaxlm.errors import NonFiniteLoss, UserError


@pytest.mark.parametrize(
    ("error", "code"), [(UserError("a setting\n  is wrong"), 2), (NonFiniteLoss("a setting is\nwrong"), 3)]
)
def test_a_known_error_is_one_line_and_its_exit_code(monkeypatch, capsys, error, code):
    monkeypatch.setattr(sys, "argv", ["train.py", "x", "--y"])
    given = []

    def main(args):
        given.append(args)
        raise error

    with pytest.raises(SystemExit) as stopped:
        run_main(main)
    assert stopped.value.code == code
    assert given == [["x", "--y"]]
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "error: a setting is wrong\n")


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.EACCES, errno.ELOOP])
def test_a_path_that_the_system_refuses_is_one_line(monkeypatch, capsys, number):
    def main(args):
        raise OSError(number, os.strerror(number), "runs/a\nb")

    with pytest.raises(SystemExit) as stopped:
        run_main(main)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: 'runs/a\\nb' cannot be used: {os.strerror(number)}\n"


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "of no file"), FileNotFoundError(errno.ENOENT, "gone", "x")])
def test_what_may_be_a_bug_of_ours_is_not_taken_for_a_refused_path(error):
    def main(args):
        raise error

    with pytest.raises(type(error)):
        run_main(main)


@pytest.mark.parametrize("code", [0, 130, 143])
def test_what_main_returns_is_the_exit_code(monkeypatch, code):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit) as stopped:
        run_main(lambda args: code)
    assert stopped.value.code == code


def test_a_bug_is_not_hidden(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(ZeroDivisionError):
        run_main(lambda args: 1 // 0)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


COMMANDS = "emma\x1b[31m\r\x07\x7f\x9b2J\u202e\tava\nmia"


def test_control_characters_reach_no_terminal():
    terminal = Terminal()
    show(COMMANDS, file=terminal)
    assert terminal.getvalue() == "emma\\x1b[31m\\r\\x07\\x7f\\x9b2J\\u202e\tava\nmia\n"


def test_a_file_has_the_text_as_it_is():
    file = io.StringIO()
    show(COMMANDS, end="", file=file)
    assert file.getvalue() == COMMANDS


def test_an_error_has_no_control_characters(capsys):
    def main(args):
        raise UserError("word '\x1b[31m' is unknown")

    with pytest.raises(SystemExit):
        run_main(main)
    assert capsys.readouterr().err == "error: word '\\x1b[31m' is unknown\n"


class JaxRuntimeError(RuntimeError):
    """Named as the one of XLA's failures."""


@pytest.mark.parametrize(
    "error", [JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nMore."), MemoryError()]
)
def test_a_lack_of_memory_is_one_line(capsys, error):
    def main(args):
        raise error

    with pytest.raises(SystemExit) as stopped:
        run_main(main)
    shown = capsys.readouterr().err
    assert stopped.value.code == 2 and shown.startswith("error: not enough memory (") and shown.count("\n") == 1


def test_another_failure_of_xla_is_not_hidden():
    def main(args):
        raise JaxRuntimeError("INTERNAL: a bug")

    with pytest.raises(JaxRuntimeError):
        run_main(main)
