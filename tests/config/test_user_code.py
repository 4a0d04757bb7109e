"""Classes of settings by name, and whose code runs."""

import dataclasses
import inspect
import os
import shutil
import sys
from pathlib import Path

import pytest

import jaxlm
from jaxlm import config as settings
from jaxlm.cli.train_command import load_config
from jaxlm.config import ModelConfig, RunConfig
from jaxlm.config.serialization import from_json, settings_that_change_numbers, to_json
from jaxlm.errors import UserError

OWN = """
import dataclasses
from pathlib import Path
from jaxlm import CountsConfig, RunConfig

Path(__file__).with_name("it ran").touch()

@dataclasses.dataclass(frozen=True)
class OwnConfig(CountsConfig):
    width: int = 3

config = RunConfig(model=OwnConfig(width=5), run_dir=str(Path(__file__).with_name("run")))
"""


def forget(name):
    """As a new process does: no module of this name, or of a file of this name, is loaded."""
    for key, module in list(sys.modules.items()):
        if key == name or str(vars(module).get("__file__", "")).endswith(f"/{name}.py"):
            del sys.modules[key]


@pytest.fixture
def saved(tmp_path):
    """The settings of a foreign run, by which a file is named that has not run yet."""
    (tmp_path / "own.py").write_text(OWN)
    tree = to_json(load_config(tmp_path / "own.py"))
    forget("own")
    (tmp_path / "it ran").unlink()
    return tree


def test_every_class_of_ours_has_a_public_name():
    public = [getattr(settings, name) for name in settings.__all__]
    for cls in public:
        assert getattr(jaxlm, cls.__name__) is cls
        if issubclass(cls, ModelConfig) and not inspect.isabstract(cls):
            words = settings.CharactersConfig() if cls.predicts_text else settings.WordsConfig()
            data = settings.DataConfig(tokens=words)
            assert to_json(RunConfig(model=cls(), data=data, steps=1))["model"]["class"] == f"jaxlm:{cls.__name__}"


def test_the_path_of_a_file_is_relative_to_the_run(saved, tmp_path):
    assert saved["model"]["class"] == "../own.py:OwnConfig"
    assert settings_that_change_numbers(saved)["model.class"] == "OwnConfig"


def test_a_file_that_a_run_names_is_not_run_unasked(saved, tmp_path):
    with pytest.raises(UserError) as caught:
        from_json(saved)
    message = str(caught.value)
    assert "'OwnConfig'" in message and str(tmp_path / "own.py") in message and "--trust-code" in message
    assert "\n" not in message and not (tmp_path / "it ran").exists()
    assert from_json(saved, trust_code=True).model.width == 5  # type: ignore[attr-defined]
    assert (tmp_path / "it ran").exists()


def test_a_module_that_a_run_names_is_not_imported_unasked(saved, tmp_path, monkeypatch):
    package = tmp_path / "someones_package"
    package.mkdir()
    (package / "__init__.py").touch()
    shutil.copy(tmp_path / "own.py", package / "models.py")
    monkeypatch.syspath_prepend(tmp_path)
    tree = {**saved, "model": {**saved["model"], "class": "someones_package.models:OwnConfig"}}
    with pytest.raises(UserError, match=r"'someones_package\.models', which only runs .* --trust-code"):
        from_json(tree)
    assert "someones_package" not in sys.modules and not (package / "it ran").exists()
    config = from_json(tree, trust_code=True)
    assert to_json(config)["model"]["class"] == "someones_package.models:OwnConfig"
    assert repr(from_json(tree)) == repr(config)  # it is loaded now
    forget("someones_package.models")


def test_a_class_whose_file_is_loaded_needs_no_trust(saved, tmp_path):
    config = load_config(tmp_path / "own.py")
    assert from_json(saved) == config


def test_run_and_file_move_together(saved, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "own.py").rename(tmp_path / "elsewhere" / "own.py")
    with pytest.raises(UserError, match=r"own\.py', which is no file: give it after --trust-code"):
        from_json(saved, trust_code=True)
    assert from_json(saved, True, tmp_path / "elsewhere" / "run").model.width == 5  # type: ignore[attr-defined]


def test_a_file_that_moved_is_given(saved, tmp_path):
    moved = tmp_path / "renamed.py"
    (tmp_path / "own.py").rename(moved)
    assert from_json(saved, moved).model.width == 5  # type: ignore[attr-defined]
    assert from_json(saved, str(moved)).model.width == 5  # type: ignore[attr-defined]
    other = tmp_path / "other.py"
    other.write_text("")
    with pytest.raises(UserError, match=r"class '\.\./own\.py:OwnConfig' of this run is not a ModelConfig"):
        from_json(saved, other)


def test_a_link_to_a_run_finds_the_file(saved, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    link = tmp_path / "deep" / "deeper" / "link"
    link.symlink_to(tmp_path / "run")
    assert from_json(saved, True, link).model.width == 5  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True)
class HereConfig(settings.CountsConfig):
    """A class in a module of a package."""


def test_a_class_in_a_package_is_named_by_its_module():
    assert to_json(RunConfig(model=HereConfig()))["model"]["class"] == f"{__name__}:HereConfig"


def test_a_module_on_the_path_is_named_by_its_file(tmp_path, monkeypatch):
    (tmp_path / "own_on_path.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    import own_on_path  # type: ignore[import-not-found]

    name = to_json(own_on_path.config)["model"]["class"]
    assert name == f"{os.path.relpath(tmp_path / 'own_on_path.py', Path(own_on_path.config.run_dir))}:OwnConfig"
    assert from_json(to_json(own_on_path.config)) == own_on_path.config
    forget("own_on_path")
