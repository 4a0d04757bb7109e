"""The arguments of a sweep: train.py CONFIG --sweep.SETTING VALUE VALUE ..."""

import dataclasses
import itertools
import re
import typing
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from jaxlm.cli.suggestions import near_setting
from jaxlm.cli.train_command import load_train, train_command
from jaxlm.errors import UserError
from jaxlm.sweep import Variant, named

PREFIX = "--sweep."
ONE_FOR_ALL = ("run_dir", "device", "gpu_memory", "seeds")
"""Settings that name the sweep's place, or that a process cannot change once it has begun."""


class SweepCommand(NamedTuple):
    """The runs of a sweep, and the flags that they share."""

    runs: list[Variant]
    restart: bool
    dry_run: bool


def parse_sweep(args: Sequence[str]) -> SweepCommand:
    """Parse train.py's arguments with --sweep options; the parser of plain settings reads every combination of values.

    Raises UserError in one line; SystemExit(0) after --help.
    """
    path, config, rest = load_train(args)
    plain, swept = _split(rest)
    if {"-h", "--help"} & set(plain):
        train_command(path, config, ["--help"])
    settings = dict(_settings(config))
    choices: dict[str, list[list[str]]] = {}
    for option, values in swept:
        name = option.removeprefix(PREFIX).replace("-", "_")
        _check_name(option, name, list(settings))
        if name in choices:
            raise UserError(f"{option} is given twice: list all its values after one")
        given = _given(plain, name)
        if given:
            raise UserError(f"{option} and {given} exclude each other: give one of them")
        if not values:
            raise UserError(f"{option} wants one value or more after it, got none")
        choices[name] = [_plain(option, name, value, *settings[name]) for value in values]
    runs = []
    for combination in itertools.product(*choices.values()):
        command = train_command(path, config, [*plain, *itertools.chain.from_iterable(combination)])
        found = {name: value for name, (_, value) in _settings(command.config)}
        runs.append(Variant({name: found[name] for name in choices}, command.config))
    return SweepCommand(named(runs), command.restart, command.dry_run)


def _split(args: Sequence[str]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The arguments of a single run, and each --sweep option with the values after it."""
    plain: list[str] = []
    swept: list[tuple[str, list[str]]] = []
    values = plain
    for arg in args:
        if arg.startswith("--sweep"):
            if "=" in arg or not arg.startswith(PREFIX):
                raise UserError(f"{arg} wants a setting's name, then values after a space: {PREFIX}optim.lr 0.01 0.1")
            values = []
            swept.append((arg, values))
        else:
            if re.match(r"--?[A-Za-z]", arg):
                values = plain
            values.append(arg)
    return plain, swept


def _settings(group: Any, prefix: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Every setting of a config by name, with its type and its value."""
    hints = typing.get_type_hints(type(group))
    for field in dataclasses.fields(group):
        value = getattr(group, field.name)
        if dataclasses.is_dataclass(value):
            yield from _settings(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, (hints[field.name], value)


def _check_name(option: str, name: str, settings: list[str]) -> None:
    if name in ONE_FOR_ALL:
        raise UserError(f"{option} is not possible: give one --{name.replace('_', '-')} for the whole sweep")
    if name not in settings:
        near = near_setting(f"--{name}", [f"--{setting.replace('_', '-')}" for setting in settings])
        hint = f"did you mean {PREFIX}{near.removeprefix('--')}?" if near else "see --help"
        raise UserError(f"{option} is not a setting ({hint})")


def _given(plain: Sequence[str], name: str) -> str | None:
    """The argument that sets `name` too, if there is one."""
    group, dot, last = name.rpartition(".")
    spellings = (name, f"{group}{dot}no_{last}")
    options = [arg.partition("=")[0] for arg in plain if arg.startswith("--")]
    return next((option for option in options if option[2:].replace("-", "_") in spellings), None)


def _plain(option: str, name: str, value: str, hint: Any, default: Any) -> list[str]:
    """The arguments that give one value to a single run."""
    if hint is bool:
        if value.lower() not in ("true", "false"):
            raise UserError(f"{option} wants true or false, got {value!r}")
        group, dot, last = name.rpartition(".")
        return [f"--{name}" if value.lower() == "true" else f"--{group}{dot}no-{last}"]
    shape = next((kind for kind in (hint, *typing.get_args(hint)) if typing.get_origin(kind) is tuple), None)
    if shape is None:
        return [f"--{name}", value]
    places, parts = typing.get_args(shape), value.split()
    if Ellipsis not in places and len(parts) != len(places):
        like = " ".join(map(str, default)) if isinstance(default, tuple) else " ".join("x" * len(places))
        raise UserError(
            f'{option} wants groups of {len(places)} values in quotes, as in {option} "{like}", got {value!r}'
        )
    return [f"--{name}", *parts]
