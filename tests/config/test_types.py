"""Names and types of settings, wherever they come from."""

import copy
import dataclasses
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxlm import config as settings
from jaxlm.cli.train_command import load_config
from jaxlm.config import (
    CountsConfig,
    DataConfig,
    MlpConfig,
    ModelConfig,
    OptimConfig,
    ReanConfig,
    RunConfig,
    VectorsConfig,
    WordsConfig,
)
from jaxlm.errors import UserError
from tests.conftest import REPOSITORY

GROUPS = [getattr(settings, name) for name in settings.__all__ if name not in ("ModelConfig", "TokensConfig")]
PREFIXES = {
    "RunConfig": "",
    "PrepareConfig": "",
    "VectorsConfig": "model.vectors_from.",
    "MeshConfig": "mesh.",
    "RopeConfig": "model.rope.",
    "DistributedConfig": "distributed.",
    "WordsConfig": "data.tokens.",
    "ReanTokensConfig": "data.tokens.",
    "BpeConfig": "data.tokens.",
    **{f"{name.capitalize()}Config": f"{name}." for name in ("data", "optim", "eval", "checkpoint", "sample")},
}


def run(**changed):
    return RunConfig(**{"model": CountsConfig(), **changed})


@pytest.mark.parametrize(
    ("group", "name"),
    [(group, field.name) for group in GROUPS for field in dataclasses.fields(group)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_every_setting_refuses_what_is_of_no_type_by_its_name(group, name):
    prefix = PREFIXES.get(group.__name__, "model.")
    with pytest.raises(UserError, match=rf"^{prefix}{name} wants .+, got <object"):
        group(**{name: object()})


MISTAKES: list[tuple[Any, dict[str, Any], str]] = [
    (MlpConfig, {"context": 3.0}, "model.context wants a whole number, got 3.0"),
    (MlpConfig, {"gain": True}, "model.gain wants a number, got True"),
    (run, {"steps": True}, "steps wants a whole number or None, got True"),
    (run, {"steps": "5"}, "steps wants a whole number or None, got '5'"),
    (run, {"plots": 1}, "plots wants True or False, got 1"),
    (run, {"batch_size": "half"}, "batch_size wants a whole number or 'full', got 'half'"),
    (run, {"optim": None}, "optim wants OptimConfig(...), got None"),
    (run, {"data": MlpConfig}, "data wants DataConfig(...), got the class MlpConfig"),
    (DataConfig, {"path": Path("x")}, f"data.path wants a string or None, got {Path('x')!r}"),
    (DataConfig, {"labels": ["a", "b"]}, "data.labels wants a tuple (a string, a string), got ['a', 'b']"),
    (DataConfig, {"split": (1.0, 0.0)}, "data.split wants a tuple (a number, a number, a number), got (1.0, 0.0)"),
    (DataConfig, {"tokens": "rean"}, "data.tokens wants a TokensConfig such as CharactersConfig(), got 'rean'"),
    (OptimConfig, {"factors": (1, "2")}, "optim.factors wants a tuple (a number, ...), got (1, '2')"),
    (OptimConfig, {"name": "adam"}, "optim.name wants 'sgd', 'adamw' or 'muon', got 'adam'"),
    (WordsConfig, {"lower": 0}, "data.tokens.lower wants True or False, got 0"),
    (
        ReanConfig,
        {"vectors_from": VectorsConfig},
        "model.vectors_from wants VectorsConfig(...) or None, got the class VectorsConfig: add brackets",
    ),
    (MlpConfig, {"contxt": 3}, "MlpConfig has no setting 'contxt' (did you mean 'context'?)"),
    (CountsConfig, {"x": 3}, "CountsConfig has no setting 'x' (it has vocab_size, order, smoothing, add_k)"),
    (partial(dataclasses.replace, run()), {"seed": 0.5}, "seed wants a whole number, got 0.5"),
]


@pytest.mark.parametrize(("make", "given", "message"), MISTAKES, ids=[message for *_, message in MISTAKES])
def test_a_mistake_is_told_in_one_line(make, given, message):
    with pytest.raises(UserError) as caught:
        make(**given)
    assert str(caught.value) == message


def test_settings_given_by_their_place_are_checked_too():
    with pytest.raises(UserError, match=r"^model\.context wants a whole number, got '3'$"):
        MlpConfig(27, "3")  # type: ignore[arg-type]

    @dataclasses.dataclass(frozen=True)
    class Named(CountsConfig):
        named: str = dataclasses.field(default="", kw_only=True)
        placed: int = 0

    assert Named(27, 2, "add-k", 1.0, 5) == Named(vocab_size=27, placed=5)


@pytest.mark.parametrize("value", [np.int64(3), np.float64(3), np.float32(3), np.array(3), np.bool_(True)])
def test_numbers_of_numpy_are_refused_but_for_the_one_that_is_a_float(value):
    with pytest.raises(UserError, match=r"^steps wants a whole number or None, got "):
        run(steps=value)
    if isinstance(value, float):
        assert OptimConfig(lr=value) == OptimConfig(lr=3.0)
    else:
        with pytest.raises(UserError, match=r"^optim\.lr wants a number, got "):
            OptimConfig(lr=value)


@pytest.mark.parametrize("remade", [copy.copy, copy.deepcopy, lambda config: pickle.loads(pickle.dumps(config))])
def test_settings_can_be_copied(remade):
    config = run(data=DataConfig(split=(1, 0, 0)), optim=OptimConfig(lr=1, clip=2), batch_size="full", epochs=3)
    assert remade(config) == config


OWN = """
import dataclasses
from typing import Any
from jaxlm import ModelConfig, RunConfig

@dataclasses.dataclass(frozen=True)
class Inner:
    depth: int = 1

@dataclasses.dataclass(frozen=True)
class OwnConfig(ModelConfig):
    width: int = 3
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()
    any: Any = None
{check}
    def build(self):
        return None

class Bare(OwnConfig):
    height: int = 3

config = RunConfig(model={model}, steps=3)
"""
CHECK = """
    def __post_init__(self):
        assert self.width < 10
"""


@pytest.mark.parametrize("check", ["", CHECK], ids=["without a check", "with its own check"])
@pytest.mark.parametrize("head", ["", "from __future__ import annotations"], ids=["types", "types as strings"])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("OwnConfig(width='3')", "model.width wants a whole number, got '3'"),
        ("OwnConfig(vocab_size=2.0)", "model.vocab_size wants a whole number or None, got 2.0"),
        ("OwnConfig(inner=Inner(depth=1.5))", "model.inner.depth wants a whole number, got 1.5"),
        ("OwnConfig(inner=None)", "model.inner wants Inner(...), got None"),
        ("OwnConfig(many=(Inner(), 3))", "model.many wants a tuple (Inner(...), ...), got (Inner(depth=1), 3)"),
        ("OwnConfig(widht=3)", "OwnConfig has no setting 'widht' (did you mean 'width'?)"),
        ("Bare(height=4)", "Bare has no setting 'height' (is @dataclasses.dataclass(frozen=True) missing above it?)"),
        ("OwnConfig", "model wants a ModelConfig such as MlpConfig(...), got the class OwnConfig: add brackets"),
    ],
)
def test_a_users_own_class_is_checked_like_ours(tmp_path, head, check, model, message):
    path = tmp_path / "own.py"
    path.write_text(head + OWN.format(check=check, model=model))
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert str(caught.value) == f"config {str(path)!r}: {message}"


def test_a_users_own_class_takes_what_it_asks_for(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN.format(check=CHECK, model="OwnConfig(27, width=4, inner=Inner(2), many=(Inner(),), any=[1])"))
    assert dataclasses.asdict(load_config(path).model)["many"] == ({"depth": 1},)


def test_what_a_users_own_class_is_made_with_need_not_be_a_field(tmp_path):
    path = tmp_path / "own.py"
    check = "    heads: dataclasses.InitVar[int] = 1\n    def __post_init__(self, heads):\n        assert heads == 2\n"
    path.write_text(OWN.format(check=check, model="OwnConfig(heads=2, width=4)"))
    assert vars(load_config(path).model)["width"] == 4


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_the_configs_that_come_with_the_package_load(path):
    assert isinstance(load_config(path).model, ModelConfig)
