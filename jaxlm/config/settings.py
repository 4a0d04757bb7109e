"""Settings: the base of every group of settings, which checks names and types before anything else."""

import dataclasses
import difflib
import functools
import inspect
import itertools
import os
import reprlib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

from jaxlm.errors import UserError, one_line

_UNIONS = (typing.Union, types.UnionType)
_WORDS: dict[Any, list[str]] = {
    int: ["a whole number"],
    float: ["a number"],
    bool: ["True", "False"],
    str: ["a string"],
    types.NoneType: ["None"],
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """A group of settings. Making one raises UserError for a name that it does not have and a value of another type.

    Checked are int, float (which takes an int), bool, str, None, Literal, tuples, dataclasses, and unions of them; a
    field of any other type takes everything, as do the fields of a plain dataclass in a tuple. Numbers are Python's, as
    config.json holds them; of numpy's, float64 is such a float.
    """

    _group: ClassVar[str] = ""
    _example: ClassVar[str] = ""

    def __init_subclass__(cls, group: str | None = None, example: str | None = None) -> None:
        """`group` is what errors write before a setting's name, as "optim."; subclasses have it too.

        `example` is what errors write of an abstract class, as "MlpConfig(...)".
        """
        super().__init_subclass__()
        if group is not None:
            cls._group = group
        if example is not None:
            cls._example = example

    def __new__(cls, *args: Any, **settings: Any) -> Self:
        """Check what is given, before __init__ and __post_init__ use it. Raises UserError."""
        names = [field.name for field in dataclasses.fields(cls) if field.init]
        for name in settings:
            if name not in names and name not in inspect.signature(cls.__init__).parameters:
                raise UserError(f"{cls.__name__} has no setting {name!r} ({_advice(cls, name, names)})")
        _check(cls, dict(zip(cls.__match_args__, args, strict=False)) | settings, cls._group)
        return super().__new__(cls)


def at_home(path: str) -> str:
    """A path with ~ or ~user at its beginning replaced by that home directory, where it is known."""
    return os.path.expanduser(path)  # noqa: PTH111 - Path.expanduser raises where it is not known


def expand_home(group: Settings, *names: str) -> None:
    """Apply `at_home` to settings that are paths, where they are set; to be called by a group's __post_init__."""
    for name in names:
        if (path := getattr(group, name)) is not None:
            object.__setattr__(group, name, at_home(path))


def refuse_unused(group: Settings, names: Iterable[str], here: str, wanted: str) -> None:
    """Raise UserError where settings that have no effect `here` differ from their defaults.

    `here` and `wanted` name the setting that decides, with its value and with the one that makes them matter.
    """
    fields = {field.name: field for field in dataclasses.fields(group)}
    unused = [fields[name] for name in names if getattr(group, name) != fields[name].default]
    if unused:
        given = " and ".join(f"{group._group}{field.name} {getattr(group, field.name)}" for field in unused)
        flags = " ".join(_flag(group._group + field.name, field.default) for field in unused)
        has, it, s = ("has", "it", "") if len(unused) == 1 else ("have", "them", "s")
        raise UserError(
            f"{given} {has} no effect with {here}, only with {wanted}: leave {it} out, or set the default{s} with "
            f"{flags}"
        )


def _flag(name: str, value: Any) -> str:
    values = value if isinstance(value, tuple) else (value,)
    return " ".join([f"--{name.replace('_', '-')}", *map(str, values)])


@functools.cache
def hints(cls: type) -> Mapping[str, Any]:
    """The type of each setting of a class, by name."""
    return typing.get_type_hints(cls)


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union; any other type alone."""
    return typing.get_args(hint) if typing.get_origin(hint) in _UNIONS else (hint,)


def items(hint: Any, count: int) -> tuple[Any, ...]:
    """The types that a tuple's type gives its items, of which a value has `count`: more or fewer where it is fixed."""
    kinds = typing.get_args(hint)
    return kinds[:1] * count if Ellipsis in kinds else kinds


def _advice(cls: type, name: str, names: list[str]) -> str:
    if "__dataclass_fields__" not in vars(cls):
        return "is @dataclasses.dataclass(frozen=True) missing above it?"
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"


def _check(cls: type, settings: Mapping[str, Any], group: str) -> None:
    for name, value in settings.items():
        hint = hints(cls).get(name, Any)
        if not _fits(value, hint):
            raise UserError(f"{group}{name} wants {_wanted(hint)}, got {_shown(value, hint)}")
        if dataclasses.is_dataclass(value) and not isinstance(value, Settings):
            inner = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            _check(type(value), inner, f"{group}{name}.")


def _fits(value: Any, hint: Any) -> bool:
    if type(value) is hint:
        return True
    if isinstance(hint, type):
        if hint in (int, float):
            return isinstance(value, (int, hint)) and not isinstance(value, bool)
        return isinstance(value, hint) if hint in _WORDS or dataclasses.is_dataclass(hint) else True
    origin, kinds = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return any(type(value) is type(kind) and value == kind for kind in kinds)
    if origin in _UNIONS:
        return any(_fits(value, kind) for kind in kinds)
    if origin is tuple and isinstance(value, tuple):
        kinds = items(hint, len(value))
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    return origin is not tuple


def _wanted(hint: Any) -> str:
    words = list(itertools.chain.from_iterable(map(_words, alternatives(hint))))
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _words(hint: Any) -> list[str]:
    if typing.get_origin(hint) is typing.Literal:
        return list(map(repr, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        kinds = ["..." if kind is Ellipsis else _wanted(kind) for kind in typing.get_args(hint)]
        return [f"a tuple ({', '.join(kinds)})"]
    if inspect.isabstract(hint):
        return [f"a {hint.__name__} such as {hint._example}"]
    return _WORDS.get(hint) or [f"{hint.__name__}(...)"]


def _shown(value: Any, hint: Any) -> str:
    if isinstance(value, type):
        kinds = [kind for kind in alternatives(hint) if isinstance(kind, type)]
        return f"the class {value.__name__}{': add brackets' if issubclass(value, tuple(kinds)) else ''}"
    return one_line(reprlib.repr(value))
