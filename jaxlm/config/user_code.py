"""Classes of settings by name: jaxlm's own by their public names, and those of the user's files.

A run directory names the class that its settings belong to. A name alone never runs code: jaxlm's own classes and those
that the process has loaded already are looked up, any other file or module is run only where `trust_code` says so.
"""

import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import sysconfig
import traceback
import types
from pathlib import Path

from jaxlm.errors import UserError, one_line

TrustCode = bool | str | os.PathLike[str]
"""False: run no code. True: run the file or module that the run directory names. A path: run this file instead."""
PUBLIC = "jaxlm"
LONGEST_REASON = 300
"""Most characters of another library's message that are repeated."""


def load_module(path: Path) -> types.ModuleType:
    """Run a Python file as a module of its own name, so that classes defined in it can be found again.

    Its bytecode is not kept: nothing is written, and a file that was just edited is read anew.
    """
    place = path.resolve()
    name = f"jaxlm_user_{hashlib.sha256(str(place).encode()).hexdigest()[:16]}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    keep, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = keep
    return module


def class_name(cls: type, run_dir: Path) -> str:
    """Return the name by which config.json in `run_dir` finds a class again.

    "jaxlm:GptConfig" for jaxlm's own; "../../own_model.py:OwnConfig" for a class in a file of its own, whose path is
    relative to the run directory; "package.module:OwnConfig" for one in a package.
    """
    if _public(cls.__qualname__) is cls:
        return f"{PUBLIC}:{cls.__qualname__}"
    module = sys.modules[cls.__module__]
    file = vars(module).get("__file__")
    in_package = bool(vars(module).get("__package__")) and cls.__module__ != "__main__"
    if file is None or in_package:
        return f"{cls.__module__}:{cls.__qualname__}"
    return f"{os.path.relpath(os.path.realpath(file), os.path.realpath(run_dir))}:{cls.__qualname__}"


def find_class(name: str, base: type, run_dir: Path, trust_code: TrustCode = False) -> type:
    """Return the concrete subclass of `base` that `class_name` named so.

    Raises UserError where there is none, and where code would have to be run for it that trust_code does not allow.
    """
    where, _, qualname = name.rpartition(":")
    if where == PUBLIC:
        cls = _public(qualname)
    elif isinstance(trust_code, bool):
        file = (run_dir / where).resolve() if where.endswith(".py") else None
        cls = _loaded(where, file, qualname) or _run_code(name, where, file, qualname, trusted=trust_code)
    else:
        cls = _in_module(_run_file(name, Path(trust_code)), qualname)
    if not isinstance(cls, type) or not issubclass(cls, base) or inspect.isabstract(cls):
        raise UserError(f"class {name!r} of this run is not a {base.__name__}")
    return cls


def is_own(cls: type) -> bool:
    """True if a class is of a user's own file and not of this package."""
    return cls.__module__.partition(".")[0] != PUBLIC


def failure(error: BaseException) -> str:
    """Say in a line why a user's own code failed, and at which of its lines: "own.py, line 3: KeyError: 'x'".

    Of libraries' own exceptions the name is left out, and all but the first line of the message.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_theirs(frame.filename)]
    place = f"{_shown(Path(frames[-1].filename))}, line {frames[-1].lineno}: " if frames else ""
    kind = type(error)
    theirs = kind.__module__ == "builtins"
    named = f"{kind.__name__}: " if theirs else ""
    text = re.sub(r"\s*\(?https?://\S+", "", str(error).strip().partition("\n\n" if theirs else "\n")[0])
    reason = one_line(text) or (frames[-1].line if frames else "") or kind.__name__
    return f"{place}{named}{reason[:LONGEST_REASON]}"


def _is_theirs(file: str) -> bool:
    """True if a file with code belongs neither to this package, nor to another one, nor to Python."""
    path = Path(file)
    ours, pythons = Path(__file__).resolve().parents[1], Path(sysconfig.get_paths()["stdlib"]).resolve()
    if not path.is_file() or {"site-packages", "dist-packages"} & set(path.parts):
        return False
    return not any(path.resolve().is_relative_to(place) for place in (ours, pythons))


def _public(name: str) -> object:
    from jaxlm import config

    return getattr(config, name) if name in config.__all__ else None


def _loaded(where: str, file: Path | None, qualname: str) -> object:
    """The class in a module that this process has loaded already, or None."""
    if file is None:
        return _in_module(sys.modules.get(where), qualname)
    for module in list(sys.modules.values()):
        origin = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(origin, str) and Path(origin).name == file.name and Path(origin).resolve() == file:
            cls = _in_module(module, qualname)
            if cls is not None:
                return cls
    return None


def _run_code(name: str, where: str, file: Path | None, qualname: str, *, trusted: bool) -> object:
    place = _shown(file) if file else where
    if not trusted:
        raise UserError(
            f"class {qualname!r} of this run is code of your own in {place!r}, which only runs if you say so: add "
            "--trust-code (in Python trust_code=True), with the file after it where it was moved"
        )
    if file is not None:
        return _in_module(_run_file(name, file), qualname)
    try:
        return _in_module(importlib.import_module(where), qualname)
    except (Exception, SystemExit) as error:
        raise UserError(f"class {name!r} of this run cannot be loaded: {failure(error)}") from error


def _run_file(name: str, file: Path) -> types.ModuleType:
    if not file.is_file():
        raise UserError(
            f"class {name!r} of this run wants {_shown(file)!r}, which is no file: give it after --trust-code"
        )
    try:
        return load_module(file)
    except (Exception, SystemExit) as error:
        raise UserError(
            f"class {name!r} of this run cannot be loaded from {_shown(file)!r}: {failure(error)}"
        ) from error


def _in_module(module: types.ModuleType | None, qualname: str) -> object:
    found: object = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def _shown(file: Path) -> str:
    here = Path.cwd()
    return str(file.relative_to(here)) if file.is_relative_to(here) else str(file)
