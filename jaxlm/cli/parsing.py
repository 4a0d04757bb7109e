"""Parse arguments into a command's dataclass; a mistake is one line."""

import contextlib
import dataclasses
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar, cast

import tyro

from jaxlm.cli.suggestions import near_setting, near_value
from jaxlm.config.settings import at_home
from jaxlm.errors import UserError, one_line

Command = TypeVar("Command")

ILL_TYPED = (
    (r"invalid literal for int\(\) with base 10: (?P<got>.*)", "INT"),
    (r"could not convert string to float: (?P<got>.*)", "FLOAT"),
    (r"no type matching (?P<kinds>\S+) could be instantiated from \[(?P<got>.*?)\]", ""),
    (r"Could not parse arguments \[(?P<got>.*?)\] into tuple type", "FLOATS"),
    (r"Could not find valid parse for arguments: \[(?P<got>.*?)\]", "FLOATS"),
)
"""Messages of tyro and Python for a value of the wrong type, each with the type where the message does not name it.

tyro has no stable interface for errors: it prints a box and exits.
"""
NO_CHOICE = re.compile(
    r"invalid choice '(?P<got>.*)' for argument '(?P<name>\S+)'\. Expected one of \((?P<values>.*?)\)"
)
"""tyro's message for a value that is none of those that a setting has."""
KINDS = {"INT": "a whole number", "FLOAT": "a number", "FLOATS": "numbers"}
WIDEST = "100000"
"""Columns of the box that is read instead of shown: enough that no message is broken into lines."""
TrustOption = Annotated[tuple[Path, ...] | None, tyro.conf.arg(metavar="[FILE.py]")]
"""The type of a command's --trust-code: None without it, () for the flag alone, (FILE,) with a file."""


def trust_last(args: Sequence[str]) -> list[str]:
    """Move --trust-code, and a .py file after it, behind all other arguments, which are not its value."""
    rest, moved = list(args), []
    if "--trust-code" in rest:
        at = rest.index("--trust-code")
        end = at + 2 if rest[at + 1 : at + 2] and rest[at + 1].endswith(".py") else at + 1
        moved, rest[at:end] = rest[at:end], []
    return rest + moved


def trust_code(option: tuple[Path, ...] | None) -> bool | Path:
    """Return the `trust_code` of `load_run` that a command's --trust-code asks for."""
    return option[0] if option else option is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpensRuns:
    """The options of a command that opens runs."""

    trust_code: TrustOption = None
    """Run the files of your own that runs name for their model classes; FILE.py after it where one was moved."""

    @property
    def trusted(self) -> bool | Path:
        """The `trust_code` of `load_run`."""
        return trust_code(self.trust_code)


def parse(kind: type[Command], args: Sequence[str], *, prog: str, default: Command | None = None) -> Command:
    """Parse arguments into a dataclass. Raises UserError in one line, with the near name; SystemExit(0) after --help.

    Where a config file gives the default, a setting that is true or false has a flag for either.
    """
    box = io.StringIO()
    options: dict[str, Any] = {"config": (tyro.conf.FlagCreatePairsOff,)} if default is None else {"default": default}
    shown = _shown() if {"-h", "--help"} & set(args) else _unshown()
    try:
        with shown, contextlib.redirect_stderr(box):
            command = tyro.cli(kind, args=list(args), prog=prog, **options)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(_condense(box.getvalue(), lambda: _setting_names(kind, options))) from None
    paths = {name: _paths_at_home(value) for name, value in vars(command).items()}
    return cast(Command, dataclasses.replace(cast(Any, command), **paths))


def _paths_at_home(value: Any) -> Any:
    """A command's path, or its tuple of paths, with ~ expanded; the settings of a run expand their own."""
    if isinstance(value, tuple):
        return tuple(map(_paths_at_home, value))
    return Path(at_home(str(value))) if isinstance(value, Path) else value


@contextlib.contextmanager
def _unshown() -> Iterator[io.TextIOWrapper]:
    """Context in which tyro's output has one form, whatever the terminal: UTF-8 boxes, no colours, no broken lines."""
    with _environment("COLUMNS", WIDEST), contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8")) as output:
        yield output


@contextlib.contextmanager
def _shown() -> Iterator[TextIO]:
    """Context in which tyro's output is for the terminal, in colours unless NO_COLOR (no-color.org) is set."""
    with _environment("TERM", "dumb") if os.environ.get("NO_COLOR") else contextlib.nullcontext():
        yield sys.stdout


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _condense(box: str, settings: Callable[[], list[str]]) -> str:
    """Return the message of tyro's box as one line, with the setting or value whose name is near."""
    body = " ".join(line.strip("│ ") for line in box.splitlines() if line.startswith("│"))
    message = one_line(body.partition("───")[0])
    unknown = re.match(r"Unrecognized options: (\S+?),?(?: |$)", message)
    if unknown:
        near = near_setting(unknown[1], settings()) if unknown[1].startswith("-") else None
        return f"{unknown[1]} is not a setting ({f'did you mean {near}?' if near else 'see --help'})"
    choice = NO_CHOICE.match(message)
    if choice:
        values = re.findall(r"'(.*?)'", choice["values"])
        near = near_value(choice["got"], values)
        hint = f" (did you mean {near}?)" if near else ""
        return f"{choice['name']} wants {', '.join(values[:-1])} or {values[-1]}, got {choice['got']!r}{hint}"
    message = re.sub(r"^Error parsing ", "", message)
    own = re.match(r"config\.?([\w.-]*): (.*)$", message)
    if own:
        return _with_path(own[2], own[1])
    for pattern, kind in ILL_TYPED:
        found = re.match(rf"(--[\w.-]+): {pattern}", message)
        if found:
            kinds = found.groupdict().get("kinds", kind).split("|")
            wanted = " or ".join(KINDS.get(one, one.strip("{}")) for one in kinds)
            return f"{found[1]} wants {wanted}, got {found['got']}"
    return re.sub(r"\.? Got errors:.*", "", message).rstrip(".") + " (see --help)"


def _with_path(message: str, path: str) -> str:
    """Return a message about a group within a group, with the names of its settings from the top.

    A group names its settings as if it were alone: "optim.lr" at the path model.vectors-from.optim too.
    """
    parts = path.split(".")
    for start in range(len(parts)):
        inner = ".".join(parts[start:])
        group = rf"(?<![\w.-])(--)?({re.escape(inner)}|{re.escape(inner.replace('-', '_'))})\."
        if re.search(group, message):
            return re.sub(group, lambda found: f"--{path}." if found[1] else f"{path.replace('-', '_')}.", message)
    return message


def _setting_names(kind: Any, options: dict[str, Any]) -> list[str]:
    """Every --setting that the help lists."""
    with _unshown() as output, contextlib.suppress(SystemExit):
        tyro.cli(kind, args=["--help"], prog="", **options)
    output.seek(0)
    return list(dict.fromkeys(re.findall(r"(?<=[ │])--[\w.-]+", output.read())))
