"""Settings to JSON and back, and the list of what differs between two."""

import dataclasses
import hashlib
import importlib
import importlib.util
import json
import sys
import types
import typing
from pathlib import Path
from typing import Any

from jaxlm.config.model import ModelConfig
from jaxlm.config.run import RunConfig
from jaxlm.errors import UserError

SAME_NUMBERS = (
    "data.path",
    "data.name",
    "data.labels",
    "run_dir",
    "device",
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

    A model class from a file of the user's own is named by that file, any other by its module.
    """
    tree: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    cls = type(config.model)
    module = sys.modules[cls.__module__]
    by_file = getattr(module, "__loaded_from_path__", None)
    tree["model"] = {"class": f"{by_file or cls.__module__}:{cls.__qualname__}", **tree["model"]}
    return tree


def from_json(tree: dict[str, Any]) -> RunConfig:
    """The RunConfig that `to_json` wrote. Raises UserError where a name or a value does not fit."""
    tree = dict(tree)
    model = dict(tree.pop("model"))
    model_class = _find_class(model.pop("class"))
    return RunConfig(model=_decode(model_class, model, "model"), **_decode_fields(RunConfig, tree, ""))


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
    except Exception as error:
        raise UserError(
            f"model class {name!r} of this run cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    cls = getattr(module, qualname, None)
    if not (isinstance(cls, type) and issubclass(cls, ModelConfig)):
        raise UserError(f"model class {name!r} of this run is not a ModelConfig")
    return cls


def _decode(cls: type, tree: dict[str, Any], where: str) -> Any:
    return cls(**_decode_fields(cls, tree, where + "."))


def _decode_fields(cls: type, tree: dict[str, Any], prefix: str) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    fields: dict[str, Any] = {}
    for name, value in tree.items():
        if name not in hints:
            raise UserError(f"config.json has the setting {prefix + name!r}, which this version does not know")
        fields[name] = _decode_value(hints[name], value, prefix + name)
    return fields


def _decode_value(hint: Any, value: Any, where: str) -> Any:
    if isinstance(value, list):
        return tuple(_decode_value(None, item, where) for item in value)
    if isinstance(value, dict):
        group = next((kind for kind in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(kind)), None)
        return value if group is None else _decode(typing.cast(type, group), value, where)
    return value
