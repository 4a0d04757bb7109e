"""Ranges of settings, and settings to JSON and back."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import jaxlm
from jaxlm.cli import load_config
from jaxlm.config import (
    CheckpointConfig,
    CountsConfig,
    DataConfig,
    EvalConfig,
    MlpConfig,
    NgramConfig,
    OptimConfig,
    RunConfig,
    SampleConfig,
)
from jaxlm.config.codec import (
    SAME_NUMBERS,
    differences,
    from_json,
    load_module,
    settings_that_change_numbers,
    to_json,
)
from jaxlm.errors import UserError


def run(**settings):
    return RunConfig(**{"model": CountsConfig(), **settings})


NAN, INF = math.nan, math.inf
OUT_OF_RANGE: list[tuple[Any, str, dict[str, list[Any]]]] = [
    (DataConfig, "data.", {"max_length": [0, -1]}),
    (
        DataConfig,
        "data.",
        {"split": [(0.8, 0.1, 0.2), (0.8, 0.1, 0.0), (1.1, -0.1, 0.0), (0, 0.5, 0.5), (NAN, 0.5, 0.5)]},
    ),
    (OptimConfig, "optim.", {"lr": [0, -0.1, NAN], "momentum": [-0.1, 1.1, NAN], "eps": [0, -1e-8, NAN]}),
    (OptimConfig, "optim.", {"betas": [(-0.1, 0.9), (0.9, 1.1), (NAN, 0.9), (1.0, 0.9), (0.9, 1.0)]}),
    (OptimConfig, "optim.", {"weight_decay": [-0.1, NAN, INF], "clip": [0, -1, NAN], "l2": [-0.1, NAN, INF]}),
    (OptimConfig, "optim.", {"warmup": [-0.1, NAN, INF], "end_factor": [-0.1, 1.1, NAN]}),
    (EvalConfig, "eval.", {"every": [0, -5], "log_every": [0], "max_tokens": [0]}),
    (CheckpointConfig, "checkpoint.", {"every": [0], "keep": [0]}),
    (SampleConfig, "sample.", {"n": [-1], "temperature": [-0.1, NAN], "max_tokens": [0]}),
    (CountsConfig, "model.", {"order": [0], "add_k": [-0.1, NAN, INF], "vocab_size": [0, -3]}),
    (NgramConfig, "model.", {"order": [1], "init_scale": [-0.1, NAN, INF], "vocab_size": [0]}),
    (MlpConfig, "model.", {"context": [0], "d_embed": [0], "d_hidden": [0], "vocab_size": [0]}),
    (run, "", {"seed": [-1, 2**32], "steps": [0, -1], "epochs": [0, -0.5, NAN, INF]}),
    (run, "", {"gpu_memory": [-0.1, 1.1, NAN], "batch_size": [0, -1]}),
]


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (make, group + name, value)
        for make, group, names in OUT_OF_RANGE
        for name, values in names.items()
        for value in values
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_setting_out_of_its_range_is_refused_by_name(make, name, value):
    with pytest.raises(UserError, match=rf"^{name} wants ") as caught:
        make(**{name.rpartition(".")[2]: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (DataConfig, {"max_length": 1, "split": (1.0, 0.0, 0.0)}),
        (DataConfig, {"split": (1 / 3, 1 / 3, 1 / 3)}),
        (OptimConfig, {"momentum": 0, "betas": (0.0, 0.0), "weight_decay": 0, "l2": 0, "clip": None, "end_factor": 1}),
        (OptimConfig, {"momentum": 1, "end_factor": 0, "boundaries": (0,), "factors": (0,)}),
        (EvalConfig, {"every": 1, "log_every": None, "max_tokens": 1}),
        (CheckpointConfig, {"every": 1, "keep": 1}),
        (SampleConfig, {"n": 0, "temperature": 0, "max_tokens": 1}),
        (CountsConfig, {"order": 1, "add_k": 0, "vocab_size": 1}),
        (NgramConfig, {"order": 2, "init_scale": 0}),
        (MlpConfig, {"context": 1, "d_embed": 1, "d_hidden": 1}),
        (run, {"seed": 2**32 - 1, "gpu_memory": 0, "steps": 1, "batch_size": 1}),
        (run, {"seed": 0, "gpu_memory": 1, "epochs": 0.01, "batch_size": "full"}),
    ],
)
def test_the_ends_of_a_range_belong_to_it(make, settings):
    config = make(**settings)
    assert {name: getattr(config, name) for name in settings} == settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"boundaries": (0.5,)}, "optim.factors wants one factor for each of the 1 boundaries, got 0"),
        ({"factors": (0.1, 0.2), "boundaries": (0.5,)}, "optim.factors wants one factor .* got 2"),
        ({"schedule": "piecewise"}, "optim.boundaries wants at least one boundary"),
        ({"boundaries": (-1,), "factors": (0.1,)}, "optim.boundaries and optim.factors wants a number >= 0, got -1"),
        (
            {"boundaries": (0.5,), "factors": (-0.1,)},
            "optim.boundaries and optim.factors wants a number >= 0, got -0.1",
        ),
        (
            {"boundaries": (INF,), "factors": (0.1,)},
            "optim.boundaries and optim.factors wants a number .* got inf",
        ),
    ],
)
def test_boundaries_and_factors_go_in_pairs(settings, message):
    with pytest.raises(UserError, match=f"^{message}"):
        OptimConfig(**settings)


def test_steps_and_epochs_exclude_each_other():
    with pytest.raises(UserError, match=r"steps and epochs exclude each other, got steps 3 and epochs 2\.0"):
        run(steps=3, epochs=2.0)


def test_a_model_trained_by_steps_wants_a_length_and_counts_do_not():
    with pytest.raises(UserError, match=r"^steps wants a number of updates \(or give epochs\), got neither"):
        RunConfig(model=MlpConfig())
    assert RunConfig(model=MlpConfig(), epochs=1.0).steps is None
    assert RunConfig(model=CountsConfig()).steps is None


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        run().seed = 1
    assert isinstance(hash(run()), int)


def test_the_data_fills_only_what_was_left_open():
    assert MlpConfig().filled(27, 9).vocab_size == 27
    assert MlpConfig(vocab_size=30, d_hidden=5).filled(27, 9) == MlpConfig(vocab_size=30, d_hidden=5)


@pytest.mark.parametrize("model", [MlpConfig(), NgramConfig(), CountsConfig()])
def test_building_without_a_vocabulary_is_refused(model):
    with pytest.raises(ValueError, match="vocab_size wants a number to build the model, got None"):
        model.build()


FULL = RunConfig(
    model=MlpConfig(context=4, vocab_size=27, init="normal"),
    data=DataConfig(path="a.txt", split=(0.7, 0.2, 0.1), kind="stream", example="sequence"),
    optim=OptimConfig(
        name="adamw", schedule="piecewise", boundaries=(0.5, 100.0), factors=(0.1, 0.2), betas=(0.8, 0.9), clip=1.0
    ),
    eval=EvalConfig(every=5),
    checkpoint=CheckpointConfig(keep=7),
    sample=SampleConfig(temperature=0.5),
    epochs=2.5,
    batch_size="full",
)
PLAIN = [FULL, RunConfig(model=CountsConfig(order=3)), RunConfig(model=NgramConfig(), steps=9, batch_size=8)]


@pytest.mark.parametrize("config", PLAIN, ids=lambda config: type(config.model).__name__)
def test_settings_survive_json(config):
    tree = json.loads(json.dumps(to_json(config), allow_nan=False))
    assert from_json(tree) == config
    assert to_json(from_json(tree)) == tree
    assert tree["model"]["class"] == f"{type(config.model).__module__}:{type(config.model).__name__}"


OWN = """
import dataclasses
from jaxlm import ModelConfig, RunConfig

@dataclasses.dataclass(frozen=True)
class Inner:
    depth: int = 1

@dataclasses.dataclass(frozen=True)
class OwnConfig(ModelConfig):
    widths: tuple[int, ...] = (1, 2)
    inner: Inner = Inner()
    {field}

    def build(self):
        return None

config = RunConfig(model=OwnConfig(widths=(3, 4, 5), inner=Inner(depth=2)), steps=3)
"""


@pytest.mark.parametrize(
    "field",
    ["", "pairs: tuple[tuple[int, int], ...] = ((1, 2), (3, 4))", "other: Inner | None = Inner(7)"],
    ids=["plain", "tuple of tuples", "optional group"],
)
def test_a_users_own_model_class_survives_json(tmp_path, field):
    path = tmp_path / "own.py"
    path.write_text(OWN.format(field=field))
    config = load_config(path)
    tree = json.loads(json.dumps(to_json(config)))
    assert tree["model"]["class"] == f"{path}:OwnConfig"
    again = from_json(tree)
    assert (type(again.model).__name__, repr(again)) == ("OwnConfig", repr(config))


def test_a_users_own_model_class_is_found_by_another_process(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN.format(field=""))
    code = "import json, sys; from jaxlm.config.codec import from_json; print(from_json(json.load(sys.stdin)))"
    root = str(Path(jaxlm.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(to_json(load_config(path))),
        env={**os.environ, "PYTHONPATH": root},
        cwd=tmp_path,
        text=True,
        capture_output=True,
        check=True,
    )
    assert done.stdout.strip() == repr(load_config(path))


def test_files_of_the_same_name_keep_their_own_classes(tmp_path):
    configs = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own.py").write_text(OWN.format(field=f"{folder}: int = 1"))
        configs.append(load_config(tmp_path / folder / "own.py"))
    named = [to_json(config)["model"]["class"] for config in configs]
    assert named == [f"{tmp_path / folder / 'own.py'}:OwnConfig" for folder in ("a", "b")]
    assert [repr(from_json(to_json(config))) for config in configs] == [repr(config) for config in configs]


def test_a_file_edited_within_a_second_is_read_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "edited.py"
    path.write_text("value = 1\n")
    os.utime(path, (1e9, 1e9))
    assert load_module(path).value == 1
    path.write_text("value = 2\n")
    os.utime(path, (1e9, 1e9))
    assert load_module(path).value == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sede": 1}, "config.json has the setting 'sede', which this version does not know"),
        ({"data": {"pth": "x"}}, "config.json has the setting 'data.pth', which"),
        ({"model": {"class": "jaxlm.config.mlp:MlpConfig", "widht": 3}}, "config.json has the setting 'model.widht'"),
        (
            {"model": {"class": "jaxlm.config.mlp:Nothing"}},
            "model class 'jaxlm.config.mlp:Nothing' .* is not a ModelConfig",
        ),
        ({"model": {"class": "jaxlm.config.run:RunConfig"}}, "is not a ModelConfig"),
        ({"model": {"class": "no.such.module:X"}}, "model class 'no.such.module:X' of this run cannot be loaded"),
        ({"model": {"class": "/nowhere/own.py:X"}}, "model class '/nowhere/own.py:X' of this run cannot be loaded"),
        ({"seed": -1}, "seed wants"),
    ],
)
def test_json_that_does_not_fit_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        from_json({**to_json(FULL), **change})


@pytest.mark.parametrize("source", ["config = (\n", "1 / 0\n"], ids=["syntax", "raises"])
def test_a_model_file_that_broke_since_is_refused(tmp_path, source):
    path = tmp_path / "own.py"
    path.write_text(source)
    with pytest.raises(UserError, match=r"model class '.*own\.py:X' of this run cannot be loaded"):
        from_json({**to_json(FULL), "model": {"class": f"{path}:X"}})


def test_differences_name_each_setting_with_both_values():
    old = to_json(FULL)
    new = to_json(dataclasses.replace(FULL, seed=3, optim=dataclasses.replace(FULL.optim, lr=0.5, clip=None)))
    assert differences(old, old) == []
    assert differences(old, new) == ["optim.clip: 1.0, now null", "optim.lr: 0.1, now 0.5", "seed: 0, now 3"]
    assert differences({"a": 1}, {"b": {"c": [1, 2]}}) == ["a: 1, now null", "b.c: null, now [1, 2]"]


def flat(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def changed(tree, name):
    """The tree with another value at a flat name."""
    head, _, rest = name.partition(".")
    return {**tree, head: changed(tree[head], rest) if rest else "another value"}


def test_only_what_changes_numbers_decides_whether_a_run_is_the_same():
    tree = to_json(FULL)
    before = settings_that_change_numbers(tree)
    same = {name for name in flat(tree) if settings_that_change_numbers(changed(tree, name)) == before}
    groups = {"eval", "checkpoint", "sample"}
    plain = {"data.path", "data.name", "data.labels", "run_dir", "device", "gpu_memory", "tensorboard", "plots"}
    assert same == plain | {name for name in flat(tree) if name.partition(".")[0] in groups}
    assert set(SAME_NUMBERS) == groups | plain
