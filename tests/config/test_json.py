"""Settings to JSON and back, users' own classes included."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import jaxlm
from jaxlm.cli.train_command import load_config
from jaxlm.config import (
    CheckpointConfig,
    CountsConfig,
    DataConfig,
    EvalConfig,
    MlpConfig,
    NgramConfig,
    OptimConfig,
    ReanConfig,
    ReanTokensConfig,
    RunConfig,
    SampleConfig,
    VectorsConfig,
    Word2vecConfig,
    WordsConfig,
)
from jaxlm.config.serialization import (
    SAME_NUMBERS,
    differences,
    from_json,
    settings_that_change_numbers,
    to_json,
)
from jaxlm.config.user_code import load_module
from jaxlm.errors import UserError

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
PLAIN = [
    FULL,
    RunConfig(model=CountsConfig(order=3), data=DataConfig(tokens=ReanTokensConfig(max_vocab=7))),
    RunConfig(model=NgramConfig(), steps=9, batch_size=8),
    RunConfig(model=Word2vecConfig(), data=DataConfig(tokens=WordsConfig(phrases=2.0)), steps=9),
]


@pytest.mark.parametrize("config", PLAIN, ids=lambda config: type(config.model).__name__)
def test_settings_survive_json(config):
    tree = json.loads(json.dumps(to_json(config), allow_nan=False))
    assert from_json(tree) == config
    assert to_json(from_json(tree)) == tree
    assert tree["model"]["class"] == f"jaxlm:{type(config.model).__name__}"
    assert tree["data"]["tokens"]["class"] == f"jaxlm:{type(config.data.tokens).__name__}"


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
    [
        "",
        "pairs: tuple[tuple[int, int], ...] = ((1, 2), (3, 4))",
        "other: Inner | None = Inner(7)",
        "many: tuple[Inner, ...] = (Inner(1), Inner(2))",
    ],
    ids=["plain", "tuple of tuples", "optional group", "tuple of groups"],
)
def test_a_users_own_model_class_survives_json(tmp_path, field):
    path = tmp_path / "own.py"
    path.write_text(OWN.format(field=field))
    config = load_config(path)
    tree = json.loads(json.dumps(to_json(config)))
    assert tree["model"]["class"] == f"{os.path.relpath(path, 'runs/run')}:OwnConfig"
    again = from_json(tree)
    assert (type(again.model).__name__, repr(again)) == ("OwnConfig", repr(config))


def test_a_whole_number_that_an_older_version_kept_with_a_point_is_one():
    tree = to_json(RunConfig(model=MlpConfig(), steps=200))
    tree["steps"], tree["optim"]["lr"] = 200.0, 1.0
    config = from_json(tree)
    assert type(config.steps) is int and type(config.optim.lr) is float


def test_a_value_of_ones_own_that_json_does_not_have_is_refused(tmp_path):
    path = tmp_path / "own.py"
    path.write_text("from pathlib import Path\n" + OWN.format(field='place: Path = Path("here")'))
    with pytest.raises(UserError, match=r"settings want numbers.*PosixPath\('here'\)"):
        to_json(load_config(path))


def test_a_users_own_model_class_is_found_by_another_process(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN.format(field=""))
    config = dataclasses.replace(load_config(path), run_dir=str(tmp_path / "run"))
    code = "import json, sys; from jaxlm.config.serialization import *; print(from_json(json.load(sys.stdin), True))"
    root = str(Path(jaxlm.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(to_json(config)),
        env={**os.environ, "PYTHONPATH": root},
        cwd=tmp_path,
        text=True,
        capture_output=True,
        check=True,
    )
    assert done.stdout.strip() == repr(config)


def test_files_of_the_same_name_keep_their_own_classes(tmp_path):
    configs = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own.py").write_text(OWN.format(field=f"{folder}: int = 1"))
        configs.append(load_config(tmp_path / folder / "own.py"))
    named = [to_json(config)["model"]["class"] for config in configs]
    assert named == [f"{os.path.relpath(tmp_path / folder / 'own.py', 'runs/run')}:OwnConfig" for folder in ("a", "b")]
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
        ({"sede": 1}, "^the setting 'sede' is not one that this version knows$"),
        ({"data": {"pth": "x"}}, "^the setting 'data.pth' is not one that this version knows"),
        ({"model": {"class": "jaxlm:MlpConfig", "widht": 3}}, "^the setting 'model.widht' is not one"),
        (
            {"model": {"class": "jaxlm:MlpConfig", "context": "3"}},
            "^model.context wants a whole number, got '3'",
        ),
        ({"model": {}}, "^model.class wants the name of a ModelConfig, as jaxlm:MlpConfig, got None$"),
        ({"model": {"class": 3}}, "^model.class wants .* got 3$"),
        ({"model": {"class": "jaxlm:ModelConfig"}}, "class 'jaxlm:ModelConfig' .* is not a ModelConfig"),
        ({"model": 3}, "^model wants a ModelConfig such as MlpConfig.*, got 3$"),
        ({"data": 3}, r"^data wants DataConfig\(\.\.\.\), got 3$"),
        ({"data": {"split": [1, 0]}}, r"^data.split wants a tuple \(a number, a number, a number\), got \(1, 0\)$"),
        (
            {"optim": {"boundaries": [[0.5]]}},
            r"^optim.boundaries wants a tuple \(a number, \.\.\.\), got \(\(0.5,\),\)$",
        ),
        ({"steps": "x"}, "^steps wants a whole number or None, got 'x'$"),
        ({"steps": {"x": 1}}, "^steps wants a whole number or None, got {'x': 1}$"),
        ({"model": {"class": "jaxlm:Nothing"}}, "class 'jaxlm:Nothing' .* is not a ModelConfig"),
        ({"model": {"class": "jaxlm:RunConfig"}}, "is not a ModelConfig"),
        ({"model": {"class": "jaxlm:train"}}, "is not a ModelConfig"),
        ({"model": {"class": "jaxlm.config.run:RunConfig"}}, "is not a ModelConfig"),
        ({"model": {"class": "no.such.module:X"}}, "class 'X' of this run is code .* 'no.such.module'.* --trust-code"),
        (
            {"model": {"class": "/nowhere/own.py:X"}},
            "class 'X' of this run is code .* '/nowhere/own.py', which",
        ),
        ({"seed": -1}, "seed wants"),
        ({"data": {"tokens": {}}}, "^data.tokens.class wants the name of a TokensConfig"),
        (
            {"data": {"tokens": {"class": "jaxlm:MlpConfig"}}},
            "is not a TokensConfig",
        ),
        (
            {"data": {"tokens": {"class": "jaxlm:ReanTokensConfig", "min_count": 0}}},
            "^data.tokens.min_count wants a number >= 1, got 0$",
        ),
    ],
)
def test_json_that_does_not_fit_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        from_json({**to_json(FULL), **change})


@pytest.mark.parametrize("tree", [[], 3, None, "x"])
def test_json_that_holds_no_settings_is_refused(tree):
    with pytest.raises(UserError, match=r"^the settings want to be an object \{\.\.\.\}, got "):
        from_json(tree)


def test_a_setting_without_a_default_is_missed_by_name(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN.format(field="needed: int = dataclasses.field(kw_only=True)").replace("(w", "(needed=1, w"))
    tree = to_json(load_config(path))
    del tree["model"]["needed"]
    for change, name in ((tree, "model.needed"), ({"steps": 3}, "model")):
        with pytest.raises(UserError, match=f"^the setting '{name}' is missing$"):
            from_json(change)


@pytest.mark.parametrize(
    "source", ["config = (\n", "1 / 0\n", "import sys; sys.exit(0)\n"], ids=["syntax", "raises", "leaves"]
)
def test_a_model_file_that_broke_since_is_refused(tmp_path, source):
    path = tmp_path / "own.py"
    path.write_text(source)
    with pytest.raises(UserError, match=r"class '.*own\.py:X' of this run cannot be loaded from"):
        from_json({**to_json(FULL), "model": {"class": f"{path}:X"}}, trust_code=True)


def test_differences_name_each_setting_with_both_values():
    old = settings_that_change_numbers(to_json(FULL))
    new = dataclasses.replace(FULL, seed=3, optim=dataclasses.replace(FULL.optim, lr=0.5, clip=None))
    assert differences(old, FULL) == []
    assert differences(old, new) == ["optim.clip: 1.0, now null", "optim.lr: 0.1, now 0.5", "seed: 0, now 3"]


def without(config, *names):
    """The settings of a run of an older version, which does not have these."""
    flat = settings_that_change_numbers(to_json(config))
    return {name: value for name, value in flat.items() if not name.startswith(names)}


def test_a_setting_that_an_older_run_does_not_have_counts_as_its_default():
    assert differences(without(FULL, "seed", "optim.momentum", "data.split_seed"), FULL) == []
    assert differences(without(FULL, "optim.lr"), FULL) == []
    assert differences(without(FULL, "optim.clip"), FULL) == ["optim.clip: null, now 1.0"]
    assert differences(without(FULL, "data.split"), FULL)[0] == "data.split: [0.8, 0.1, 0.1], now [0.7, 0.2, 0.1]"


def test_a_group_that_an_older_run_does_not_have_counts_as_its_default():
    plain = RunConfig(model=MlpConfig(), steps=3)
    assert differences(without(plain, "optim."), plain) == []
    changed = dataclasses.replace(plain, optim=OptimConfig(lr=0.3))
    assert differences(without(plain, "optim."), changed) == ["optim.lr: 0.1, now 0.3"]
    data = DataConfig(tokens=ReanTokensConfig())
    rean = RunConfig(model=ReanConfig(table="tuned", vectors_from=VectorsConfig()), data=data, steps=3)
    # a group that is left out by default is none of its own defaults
    assert "model.vectors_from.epochs: not set, now 3.0" in differences(without(rean, "model.vectors_from."), rean)
    # where the older run has a part of a group, what it lacks has the default of the group's class
    assert differences(without(rean, "model.vectors_from.epochs", "model.vectors_from.model.window"), rean) == []
    within = differences(without(rean, "model.vectors_from.optim.lr"), rean)
    assert within == ["model.vectors_from.optim.lr: 0.1, now 0.025"]
    assert differences(without(rean, "model.vectors_from.optim."), rean) == []


def test_a_setting_that_this_version_does_not_have_counts_as_equal():
    old = settings_that_change_numbers(to_json(FULL))
    assert differences({**old, "optim.nesterov": True, "model.gone.inner": 3, "gone": None}, FULL) == []


def test_a_group_that_is_no_longer_set_is_a_difference():
    rean = RunConfig(model=ReanConfig(), data=DataConfig(tokens=ReanTokensConfig()), steps=3)
    was = {**settings_that_change_numbers(to_json(rean)), "model.vectors_from.epochs": 3.0}
    del was["model.vectors_from"]
    assert differences(was, rean) == ["model.vectors_from.epochs: 3.0, now null"]
    tuned = dataclasses.replace(rean, model=ReanConfig(table="tuned", vectors_from=VectorsConfig()))
    found = differences(settings_that_change_numbers(to_json(rean)), tuned)
    assert [line.partition(":")[0] for line in found] == ["model.table", "model.vectors_from"]


def test_the_default_of_a_users_own_setting_is_its_classs(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN.format(field="height: int = 7"))
    config = load_config(path)
    assert differences(without(config, "model.height"), config) == []
    path.write_text(OWN.format(field="height: int = dataclasses.field(kw_only=True)").replace("(w", "(height=1, w"))
    assert differences(without(config, "model.height"), load_config(path)) == ["model.height: not set, now 1"]


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
    groups = {"eval", "checkpoint", "sample", "mesh", "distributed"}
    plain = {"data.path", "data.encoding", "data.name", "data.labels", "run_dir", "device", "gpu_memory"}
    plain |= {"tensorboard", "wandb", "profile", "plots", "data.tokens.path"}
    plain |= {"model.attention", "model.remat", "model.scan"}
    assert same == plain & set(flat(tree)) | {name for name in flat(tree) if name.partition(".")[0] in groups}
    assert set(SAME_NUMBERS) == groups | plain
