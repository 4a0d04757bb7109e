"""The prompt loop: answers that are broken off, and its history. Conversations are in test_chat.py, terminals in
test_cli_sample.py.
"""

import io
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from jaxlm.cli import interactive
from jaxlm.cli.sample_command import SampleCommand

COMMAND = SampleCommand(Path("run"), interactive=True)


@pytest.fixture
def leave(monkeypatch):
    """In place of the end of the process."""
    leave = Mock()
    monkeypatch.setattr(interactive, "leave", leave)
    return leave


def test_an_answer_that_is_broken_off_ends_no_session_but_the_process_at_its_end(monkeypatch, capsys, leave):
    """Python would be taken down while XLA still compiles, which crashes now and then."""
    answers = [KeyboardInterrupt, "emma"]
    monkeypatch.setattr("sys.stdin", io.StringIO("o\ne\n"))
    interactive.sample(COMMAND, Mock(side_effect=answers))
    assert capsys.readouterr().out == "\nemma\n"
    leave.assert_called_once_with(0)


def test_a_session_without_such_an_answer_ends_in_order(monkeypatch, leave):
    monkeypatch.setattr("sys.stdin", io.StringIO("e\n"))
    interactive.sample(COMMAND, Mock(return_value="emma"))
    leave.assert_not_called()


def test_a_line_is_in_the_history_before_it_is_answered(monkeypatch):
    readline, seen = Mock(), []
    monkeypatch.setitem(sys.modules, "readline", readline)
    monkeypatch.setattr("sys.stdin", io.StringIO("a\nb\n"))

    def draw(command: SampleCommand) -> str:
        seen.append((command.prompt, readline.write_history_file.call_count))
        return ""

    interactive.sample(COMMAND, draw)
    assert seen == [("a", 1), ("b", 2)]
    assert readline.read_history_file.call_count == 1
