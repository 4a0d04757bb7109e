"""Settings to JSON and back, and the list of those in which an older run differs."""

import dataclasses
import inspect
import itertools
import json
import typing
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from jaxlm.config.run import DEFAULT_DIRECTORY, RunConfig
from jaxlm.config.settings import alternatives, hints, items
from jaxlm.config.user_code import TrustCode, class_name, find_class
from jaxlm.errors import UserError

SAME_NUMBERS = (
    "model.remat",
    "model.scan",
    "model.attention",
    "data.path",
    "data.encoding",
    "data.name",
    "data.labels",
    "data.tokens.path",
    "run_dir",
    "device",
    "mesh",
    "distributed",
    "gpu_memory",
    "tensorboard",
    "wandb",
    "profile",
    "plots",
    "eval",
    "checkpoint",
    "sample",
)
"""Settings (or groups) that leave the trained parameters as they are, rounding apart; data has a hash of its own."""
MISSING = object()

FindClass = Callable[[str, type], type]


def to_json(config: RunConfig) -> dict[str, Any]:
    """Return the settings as plain JSON values.

    A group whose type is an abstract class, as the model, has the class to build it as "class", by `class_name`. Raises
    UserError for a value of a user's own class that JSON does not have.
    """
    return typing.cast(dict[str, Any], _encode(config, config.directory))


def from_json(tree: Any, trust_code: TrustCode = False, run_dir: Path | None = None) -> RunConfig:
    """Return the RunConfig that `to_json` wrote into `run_dir` (None: the one that the settings name).

    Raises UserError where a name or a value does not fit or one is missing, and where a class is in a file of the
    user's own that has not been loaded and trust_code is False.
    """
    if not isinstance(tree, dict):
        raise UserError(f"the settings want to be an object {{...}}, got a {type(tree).__name__}")
    place = run_dir or Path(str(tree.get("run_dir") or DEFAULT_DIRECTORY))
    find = partial(find_class, run_dir=place, trust_code=trust_code)
    return typing.cast(RunConfig, _decode(RunConfig, tree, "", find))


def settings_that_change_numbers(tree: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that decide a run's parameters, flat: {"optim.lr": 0.1, ...}.

    SAME_NUMBERS are left out, and so is the path of a user's own class, whose file may move.
    """
    return {
        name: value.rpartition(":")[2] if _is_own_class(name, value) else value
        for name, value in _flatten(tree).items()
        if not any(name == same or name.startswith(same + ".") for same in SAME_NUMBERS)
    }


def differences(was: Mapping[str, Any], config: RunConfig) -> list[str]:
    """Return one "name: old, now new" for each setting in which an older run and a config differ.

    `was` is what `settings_that_change_numbers` gave for the older run, perhaps in another version: a setting that it
    does not have counts as the default of this version, one that this version does not have as equal.
    """
    now = settings_that_change_numbers(to_json(config))
    pairs = {name: (was[name], now[name]) for name in was.keys() & now.keys()}
    for name in now.keys() - was.keys():
        listed = any(name.startswith(other + ".") or other.startswith(name + ".") for other in was)
        if not listed:  # a group and a single value in its place
            pairs[name] = _default(config, name, was), now[name]
    for name in was.keys() - now.keys():
        value = _now(config, name)
        if value is not MISSING:
            pairs[name] = was[name], value
    return [
        f"{name}: {_shown(before)}, now {_shown(after)}"
        for name, (before, after) in sorted(pairs.items())
        if before != after
    ]


def _default(config: RunConfig, name: str, was: Mapping[str, Any]) -> Any:
    """Return the value, in JSON, of a setting that an older run does not have; MISSING where there is no default.

    Where the older run lacks whole groups, the default of the outermost of them counts.
    """
    group: Any = config
    path, rest = "", name.split(".")
    while rest and (field := _field(group, rest[0])) is not None:
        path += rest.pop(0)
        if any(other.startswith(path + ".") for other in was):
            group, path = getattr(group, field.name), path + "."
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        value = MISSING if default is dataclasses.MISSING else _encode_setting(group, field.name, default)
        for part in rest:
            value = value.get(part, MISSING) if isinstance(value, dict) else MISSING
        return value
    return MISSING


def _now(config: RunConfig, name: str) -> Any:
    """Return the value, in JSON, in the place of an older run's setting; MISSING where this version has no such one."""
    group: Any = config
    for part in name.split("."):
        if dataclasses.is_dataclass(group):
            if _field(group, part) is None:
                return MISSING
            group = getattr(group, part)
    return _encode(group)


def _field(group: Any, name: str) -> "dataclasses.Field[Any] | None":
    fields = dataclasses.fields(group) if dataclasses.is_dataclass(group) else ()
    return next((field for field in fields if field.name == name), None)


def _shown(value: Any) -> str:
    return "not set" if value is MISSING else json.dumps(value)


def _is_own_class(name: str, value: Any) -> bool:
    return name.rpartition(".")[2] == "class" and isinstance(value, str) and not value.startswith("jaxlm:")


def _encode(value: Any, run_dir: Path = Path()) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: _encode_setting(value, field.name, getattr(value, field.name), run_dir) for field in fields}
    if isinstance(value, dict):
        return {str(name): _encode(inner, run_dir) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(inner, run_dir) for inner in value]
    return json.loads(json.dumps(value, default=_refuse))


def _encode_setting(group: Any, name: str, value: Any, run_dir: Path = Path()) -> Any:
    tree = _encode(value, run_dir)
    if isinstance(tree, dict) and _holds_abstract(hints(group.__class__).get(name)):
        return {"class": class_name(type(value), run_dir), **tree}
    return tree


def _holds_abstract(hint: Any) -> bool:
    """True if a setting of this type holds a subclass of an abstract class, so that JSON has to name it."""
    return any(inspect.isabstract(kind) for kind in alternatives(hint))


def _refuse(value: object) -> Any:
    raise UserError(f"settings want numbers, strings, True, False, None, tuples or dicts of them, got {value!r}")


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _decode(cls: type, tree: dict[str, Any], prefix: str, find: FindClass) -> Any:
    if inspect.isabstract(cls):
        tree = dict(tree)
        name = tree.pop("class", None)
        if not isinstance(name, str):
            raise UserError(f"{prefix}class wants the name of a {cls.__name__}, as jaxlm:MlpConfig, got {name}")
        cls = find(name, cls)
    fields: dict[str, Any] = {}
    for name, value in tree.items():
        if name not in hints(cls):
            raise UserError(f"the setting {prefix + name!r} is not one that this version knows")
        fields[name] = _decode_value(hints(cls)[name], value, prefix + name, find)
    for field in dataclasses.fields(cls):
        if field.name not in fields and field.default is field.default_factory is dataclasses.MISSING:
            raise UserError(f"the setting {prefix + field.name!r} is missing")
    return cls(**fields)


def _decode_value(hint: Any, value: Any, where: str, find: FindClass) -> Any:
    kinds = alternatives(hint)
    if isinstance(value, list):
        shape = next((kind for kind in kinds if typing.get_origin(kind) is tuple), None)
        return tuple(
            _decode_value(kind, item, where, find)
            for kind, item in itertools.zip_longest(items(shape, len(value))[: len(value)], value)
        )
    group = next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)
    if isinstance(value, dict) and group is not None:
        return _decode(typing.cast(type, group), value, where + ".", find)
    if isinstance(value, float) and value.is_integer() and int in kinds and float not in kinds:
        return int(value)  # 2e2 is a whole number too
    return value
