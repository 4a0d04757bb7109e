"""Settings to JSON and back, and the list of what differs between two."""

import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import itertools
import json
import sys
import types
import typing
from pathlib import Path
from typing import Any

from jaxlm.config.models import ModelConfig
from jaxlm.config.run import RunConfig
from jaxlm.config.settings import alternatives, hints, items
from jaxlm.errors import UserError

SAME_NUMBERS = (
    "data.path",
    "data.name",
    "data.labels",
    "run_dir",
    "device",
    "mesh",
    "gpu_memory",
    "tensorboard",
    "plots",
    "eval",
    "checkpoint",
    "sample",
)
"""Settings (or groups) that leave the trained parameters as they are; data has a hash of its own."""


def to_json(config: RunConfig) -> dict[str, Any]:
    """The settings as plain JSON values; the model carries the class that reads it back.

    A model class from a file of the user's own is named by that file, any other by its module. Raises UserError for a
    value of such a class that JSON does not have.
    """
    tree: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=_refuse))
    cls = type(config.model)
    module = sys.modules[cls.__module__]
    by_file = getattr(module, "__loaded_from_path__", None)
    tree["model"] = {"class": f"{by_file or cls.__module__}:{cls.__qualname__}", **tree["model"]}
    return tree


def from_json(tree: Any) -> RunConfig:
    """The RunConfig that `to_json` wrote. Raises UserError where a name or a value does not fit, or one is missing."""
    if not isinstance(tree, dict):
        raise UserError(f"the settings want to be an object {{...}}, got a {type(tree).__name__}")
    return typing.cast(RunConfig, _decode(RunConfig, tree, ""))


def load_module(path: Path) -> types.ModuleType:
    """Run a Python file as a module of its own name, so that classes defined in it can be found again.

    Its bytecode is not kept: nothing is written, and a file that was just edited is read anew.
    """
    place = path.resolve()
    name = f"jaxlm_user_{hashlib.sha256(str(place).encode()).hexdigest()[:16]}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__loaded_from_path__"] = str(place)
    sys.modules[name] = module
    keep, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = keep
    return module


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One "name: old, now new" for each setting in which two JSON trees differ."""
    old_flat, new_flat = _flatten(old), _flatten(new)
    names = sorted(old_flat.keys() | new_flat.keys())
    return [
        f"{name}: {json.dumps(old_flat.get(name))}, now {json.dumps(new_flat.get(name))}"
        for name in names
        if old_flat.get(name) != new_flat.get(name)
    ]


def settings_that_change_numbers(tree: dict[str, Any]) -> dict[str, Any]:
    """The flat settings by which a run's parameters are decided: SAME_NUMBERS left out, and of the model's class the
    place of its file, which may move.
    """
    return {
        name: value.rpartition(":")[2] if name == "model.class" else value
        for name, value in _flatten(tree).items()
        if not any(name == same or name.startswith(same + ".") for same in SAME_NUMBERS)
    }


def _refuse(value: object) -> Any:
    raise UserError(f"settings want numbers, strings, True, False, None, tuples or dicts of them, got {value!r}")


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _find_class(name: str) -> type[ModelConfig]:
    where, _, qualname = name.rpartition(":")
    try:
        module = load_module(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except (Exception, SystemExit) as error:
        raise UserError(
            f"model class {name!r} of this run cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    cls = getattr(module, qualname, None)
    if not (isinstance(cls, type) and issubclass(cls, ModelConfig)) or inspect.isabstract(cls):
        raise UserError(f"model class {name!r} of this run is not a ModelConfig")
    return cls


def _decode(cls: type, tree: dict[str, Any], prefix: str) -> Any:
    if cls is ModelConfig:
        tree = dict(tree)
        name = tree.pop("class", None)
        if not isinstance(name, str):
            raise UserError(f"{prefix}class wants the module and the name of a ModelConfig, got {name}")
        cls = _find_class(name)
    fields: dict[str, Any] = {}
    for name, value in tree.items():
        if name not in hints(cls):
            raise UserError(f"the setting {prefix + name!r} is not one that this version knows")
        fields[name] = _decode_value(hints(cls)[name], value, prefix + name)
    for field in dataclasses.fields(cls):
        if field.name not in fields and field.default is field.default_factory is dataclasses.MISSING:
            raise UserError(f"the setting {prefix + field.name!r} is missing")
    return cls(**fields)


def _decode_value(hint: Any, value: Any, where: str) -> Any:
    kinds = alternatives(hint)
    if isinstance(value, list):
        shape = next((kind for kind in kinds if typing.get_origin(kind) is tuple), None)
        return tuple(
            _decode_value(kind, item, where)
            for kind, item in itertools.zip_longest(items(shape, len(value))[: len(value)], value)
        )
    group = next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)
    if isinstance(value, dict) and group is not None:
        return _decode(typing.cast(type, group), value, where + ".")
    if isinstance(value, float) and value.is_integer() and int in kinds and float not in kinds:
        return int(value)  # 2e2 is a whole number too
    return value
