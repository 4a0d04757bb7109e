"""Imports point one way, and importing does nothing else."""

import ast
import importlib
import itertools
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

import jaxlm

PACKAGE = Path(jaxlm.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
FLOORS = (
    {"errors"},
    {"text_files"},
    {"config", "tokenizers", "ops"},
    {"devices", "embeddings"},
    {"data", "models"},
    {"runs"},
    {"inference", "plots"},
    {"training"},
    {"word2vec"},
    {"rean"},
    {"any_text"},
    {"sweep"},
    {"cli"},
    {"leaderboard", "lr_range", "exercises", "compare", "interop", "server"},
    {"evaluate"},
)
"""The rooms from the ground up: each imports from lower floors and from itself."""
CONFIG = [name for name in MODULES if f"{name}.".startswith("jaxlm.config.")]
ENTRY_POINTS = {"train", "sample", "configs", "benchmarks", "tests"}


def is_type_checking(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(nodes, package, late=True):
    """The full names that nodes and all below them import, TYPE_CHECKING blocks left out; late=False: functions too."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            home = ".".join(filter(None, [above, node.module]))
            yield from (f"{home}.{alias.name}" for alias in node.names)
        elif is_type_checking(node):
            yield from imports(node.orelse, package, late)
        elif late or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(ast.iter_child_nodes(node), package, late)


def imported_by(module, late=True):
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return set(imports([ast.parse(path.read_text("utf-8"))], package, late))


def within(name, package):
    return name == package or name.startswith(package + ".")


def own(names):
    """Which of jaxlm's modules some imported names are or come from."""
    return {max((m for m in MODULES if within(name, m)), key=len) for name in names if within(name, "jaxlm")}


def test_the_reader_of_imports_sees_every_form(tmp_path, monkeypatch):
    path = tmp_path / "m.py"
    path.write_text(
        "import a.b, c\nfrom d import e as f\nfrom . import g\nfrom .h import i\nfrom ..j import k\n"
        "if TYPE_CHECKING:\n    import l\nelse:\n    import m\n"
        "def n():\n    import o\nclass P:\n    import q\ntry:\n    import r\nexcept ImportError:\n    import s\n"
    )
    monkeypatch.setitem(MODULES, "x.y.z", path)
    early = {"a.b", "c", "d.e", "x.y.g", "x.y.h.i", "x.j.k", "m", "q", "r", "s"}
    assert imported_by("x.y.z", late=False) == early
    assert imported_by("x.y.z") == early | {"o"}


def room_of(module):
    return (*module.split("."), "")[1]


def floor_of(module):
    return next((i for i, rooms in enumerate(FLOORS) if room_of(module) in rooms), None)


def test_every_module_lies_in_a_room_that_has_a_floor():
    assert [module for module in MODULES if floor_of(module) is None] == ["jaxlm"]


@pytest.mark.parametrize("module", [module for module in MODULES if module != "jaxlm"])
def test_imports_point_one_way(module):
    """Settings build what they describe by imports within functions; commands (`__main__`) stand above all rooms."""
    if module.endswith(".__main__"):
        return
    names = own(imported_by(module, late=module not in CONFIG)) - {"jaxlm"}
    above = {name for name in names if room_of(name) != room_of(module) and floor_of(name) >= floor_of(module)}
    assert not above


@pytest.mark.parametrize("module", CONFIG)
def test_settings_import_no_jax_and_no_other_room(module):
    early = imported_by(module, late=False)
    assert not [name for name in early if name.partition(".")[0] in {"jax", "flax", "optax", "orbax", "numpy"}]
    assert own(early) <= {"jaxlm.errors", *CONFIG}


def test_no_module_reaches_itself_by_imports():
    edges = {module: own(imported_by(module, late=False)) - {module} for module in MODULES}
    done = set()

    def visit(module, path):
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for name in edges[module]:
                visit(name, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


@pytest.mark.parametrize("module", MODULES)
def test_the_package_imports_no_entry_point(module):
    assert not {name.partition(".")[0] for name in imported_by(module)} & ENTRY_POINTS


@pytest.mark.parametrize("module", ["jaxlm.ops", "jaxlm.ops.recurrence", "jaxlm.ops.losses"])
def test_mathematics_knows_no_flax(module):
    libraries = {name.partition(".")[0] for name in imported_by(module)} - sys.stdlib_module_names
    assert libraries <= {"jax", "numpy", "jaxlm"}


@pytest.mark.parametrize(
    ("library", "users"),
    [
        ("orbax", {"runs"}),
        ("matplotlib", {"plots"}),
        ("tyro", {"cli"}),
        ("sklearn", {"embeddings"}),
        ("tokenizers", {"tokenizers"}),
        ("flatbuffers", {"interop"}),
        ("starlette", {"server"}),
        ("uvicorn", {"server"}),
        ("jinja2", {"server"}),
        ("argparse", set()),
        ("pickle", set()),
    ],
)
def test_a_library_is_used_in_its_own_room_only(library, users):
    using = {room_of(module) for module in MODULES if any(within(name, library) for name in imported_by(module))}
    assert using == users


def test_only_the_room_of_devices_names_meshes():
    words = {"Mesh", "NamedSharding", "shard_map", "PartitionSpec", "pmap"}

    def named(module):
        nodes = list(ast.walk(ast.parse(MODULES[module].read_text("utf-8"))))
        used = {node.id for node in nodes if isinstance(node, ast.Name)}
        used |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        return used | {name.rpartition(".")[2] for name in imported_by(module)}

    assert {room_of(module) for module in MODULES if named(module) & words} == {"devices"}


def test_the_public_names_are_those_listed_and_can_all_be_had():
    assert set(jaxlm.__all__) <= set(dir(jaxlm))
    assert all(getattr(jaxlm, name).__name__ == name for name in jaxlm.__all__)
    with pytest.raises(AttributeError, match="module 'jaxlm' has no attribute 'nothing'"):
        _ = jaxlm.nothing


def python(code, tmp_path, *args):
    """What a fresh process prints that runs code in an empty folder; nothing it writes stays unseen."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    places = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home" / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        env={
            **os.environ,
            **places,
            "PYTHONPATH": str(PACKAGE.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
            "MPLCONFIGDIR": matplotlib.get_cachedir(),
        },
        cwd=tmp_path / "here",
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    written = itertools.chain((tmp_path / "home").rglob("*"), (tmp_path / "here").rglob("*"))
    assert not [path for path in written if path.is_file()]
    return done.stdout


@pytest.mark.parametrize(
    "module",
    [
        "jaxlm",
        "jaxlm.config",
        "jaxlm.config.serialization",
        "jaxlm.cli",
        "jaxlm.tokenizers",
        "jaxlm.data.corpus",
        "jaxlm.inference.novelty",
        "jaxlm.leaderboard",
    ],
)
def test_what_needs_no_jax_loads_none(tmp_path, module):
    late = {"jax", "flax", "optax", "orbax", "matplotlib", "tokenizers"}
    code = f"import sys, {module}; print(sorted({late} & set(sys.modules)))"
    assert python(code, tmp_path) == "[]\n"


def test_settings_can_be_made_without_jax(tmp_path):
    code = "import sys, jaxlm; jaxlm.RunConfig(model=jaxlm.CountsConfig()); print('jax' in sys.modules)"
    assert python(code, tmp_path) == "False\n"


@pytest.mark.slow
def test_importing_every_module_parses_no_arguments_and_writes_nothing(tmp_path):
    names = [found.name for found in pkgutil.walk_packages([str(PACKAGE)], "jaxlm.")]
    assert {"jaxlm", *names} == set(MODULES)
    code = f"import importlib\nfor name in {names!r}: importlib.import_module(name)"
    assert python(code, tmp_path, "--help", "--no-such-setting") == ""


@pytest.mark.slow
def test_importing_every_module_leaves_jax_as_it_was(tmp_path):
    code = (
        "import os, importlib, signal, logging, jax\n"
        "def state(): return (dict(os.environ), dict(jax.config.values), signal.getsignal(signal.SIGTERM))\n"
        f"before = state()\nfor name in {sorted(MODULES)!r}: importlib.import_module(name)\n"
        "from jax._src import xla_bridge\n"
        "print(state() == before, xla_bridge.backends_are_initialized())"
    )
    assert python(code, tmp_path) == "True False\n"


@pytest.mark.parametrize("script", [path.name for path in sorted((PACKAGE.parent / "benchmarks").glob("*.py"))])
def test_benchmarks_import_names_that_exist(script):
    tree = ast.parse((PACKAGE.parent / "benchmarks" / script).read_text("utf-8"))
    for name in imports([tree], "benchmarks"):
        if within(name, "jaxlm") and name not in MODULES:
            home, _, attribute = name.rpartition(".")
            assert hasattr(importlib.import_module(home), attribute), name
