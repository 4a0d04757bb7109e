"""sample.py --interactive: prompt loops with history and editing."""

import contextlib
import dataclasses
import io
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from jaxlm.cli.process import leave, show
from jaxlm.cli.sample_command import SampleCommand
from jaxlm.config import check
from jaxlm.config.run import MOST_SAMPLES
from jaxlm.errors import UserError

Number = TypeVar("Number", int, float)

CHAT_HELP = """a line and Enter     your turn; the answer follows
/reset               forget what has been said
/temperature 0.7     0 takes the most likely token
/quit                end (so does Ctrl-D); Ctrl-C ends an answer"""
HELP = """a prompt and Enter   samples that begin with it (an empty one: from the start)
/n 5                 so many samples
/temperature 0.7     0 takes the most likely token
/quit                end (so does Ctrl-D); Ctrl-C ends an answer"""


def sample(command: SampleCommand, draw: Callable[[SampleCommand], str]) -> None:
    """A prompt loop: each line is a prompt, `draw` gives what is printed for it."""
    command = dataclasses.replace(command, n=command.n or 5)

    def answer(line: str) -> None:
        nonlocal command
        command = _one_line(command, draw, line)

    _answer_each(HELP, "> ", answer)


def converse(command: SampleCommand, run: Any, draft: Any = None) -> None:
    """A conversation with a model of dialogues, to which a draft may propose tokens."""
    from jaxlm.inference.chat import Chat
    from jaxlm.inference.sampling import Strategy
    from jaxlm.ops import prng

    option = command.first_given(("-n", "--n", "--stop"))
    if option:
        raise UserError(f"{option} does not go with --interactive on run {str(run.path)!r}: a dialogue has one answer")
    asks, answers = run.config.data.labels
    strategy = Strategy(command.temperature, command.top_k, command.top_p, command.min_p, command.repetition_penalty)
    chat = Chat(
        run,
        strategy,
        prng.from_seed(command.seed),
        command.max_tokens or 200,
        draft=draft,
        draft_tokens=command.draft_tokens,
    )

    def answer(line: str) -> None:
        if line.startswith("/"):
            _chat_command(chat, line)
        elif line.strip():
            pieces = chat.reply(line)
            show(f"{answers}: ", end="")
            with contextlib.closing(pieces):
                for piece in pieces:
                    show(piece, end="")
            print(flush=True)

    _answer_each(CHAT_HELP, f"{asks}: ", answer)


def _answer_each(usage: str, prompt: str, answer: Callable[[str], None]) -> None:
    """Answer each line that is typed; a mistake is printed, and Ctrl-C ends the answer alone.

    Of an answer that was broken off something may still be compiled, which crashes if Python is taken down with it.
    """
    broken_off = False
    for line in _typed(usage, prompt):
        try:
            answer(line)
        except UserError as error:
            show(f"error: {error}")
        except KeyboardInterrupt:
            broken_off = True
            print(flush=True)
    if broken_off:
        leave(0)


def _chat_command(chat: Any, line: str) -> None:
    name, _, value = line.strip().partition(" ")
    if name == "/reset":
        chat.reset()
    elif name == "/temperature":
        chat.strategy = dataclasses.replace(chat.strategy, temperature=_number(name, value, float))
    else:
        print(CHAT_HELP)


def _typed(usage: str, prompt: str) -> Iterator[str]:
    """The lines that are typed until /quit or Ctrl-D, each kept in a history before it is answered."""
    keep = _history()
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    if sys.stdin.isatty():
        print(usage)
    while True:
        try:
            line = input(prompt if sys.stdin.isatty() else "")
        except (EOFError, KeyboardInterrupt):
            break
        keep()
        if line.strip() == "/quit":
            break
        yield line


def _history() -> Callable[[], None]:
    """Reads the lines of sessions before, where lines can be edited and kept; what it gives keeps those typed since."""
    from jaxlm.data.source import cache_dir

    folder = cache_dir()
    if folder is None:
        return lambda: None
    path = folder / "history"
    try:
        import readline

        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            readline.read_history_file(path)
    except (ImportError, OSError):
        return lambda: None

    def keep() -> None:
        with contextlib.suppress(OSError):
            readline.write_history_file(path)

    return keep


def _one_line(command: SampleCommand, draw: Callable[[SampleCommand], str], line: str) -> SampleCommand:
    """Answer one line of the prompt loop; gives the command for the next."""
    if not line.startswith("/"):
        show(draw(dataclasses.replace(command, prompt=line)))
        return dataclasses.replace(command, seed=(command.seed + 1) % 2**32)
    name, _, value = line.strip().partition(" ")
    if name == "/n":
        n = _number(name, value, int)
        check.between("/n", n, 1, MOST_SAMPLES)
        return dataclasses.replace(command, n=n)
    if name == "/temperature":
        temperature = _number(name, value, float)
        check.at_least("/temperature", temperature, 0)
        return dataclasses.replace(command, temperature=temperature)
    print(HELP)
    return command


def _number(name: str, value: str, kind: type[Number]) -> Number:
    try:
        return kind(value)
    except ValueError:
        raise UserError(f"{name} wants a number, got {value!r}") from None
