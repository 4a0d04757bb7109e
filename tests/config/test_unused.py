"""A setting that would have no effect is refused, with the setting that makes it matter."""

import dataclasses
from typing import Any

import pytest

from jaxlm.cli.train_command import parse_train
from jaxlm.config import (
    CountsConfig,
    DataConfig,
    MlpConfig,
    ModelConfig,
    OptimConfig,
    ReanConfig,
    RunConfig,
    SampleConfig,
    Word2vecConfig,
    WordsConfig,
)
from jaxlm.errors import UserError
from tests.conftest import REPOSITORY

UNUSED: list[tuple[Any, dict[str, Any], dict[str, Any], str]] = [
    (OptimConfig, {"name": "sgd"}, {"betas": (0.9, 0.98)}, "optim.name adamw or muon"),
    (OptimConfig, {"name": "sgd"}, {"eps": 1e-6}, "optim.name adamw or muon"),
    (OptimConfig, {"name": "sgd"}, {"weight_decay": 0.1}, "optim.name adamw or muon"),
    *((OptimConfig, {"name": name}, {"momentum": 0.9}, "optim.name sgd") for name in ("adamw", "muon")),
    *(
        (OptimConfig, {"name": name}, unused, "optim.name muon")
        for name in ("sgd", "adamw")
        for unused in ({"muon_lr": 0.1}, {"muon_momentum": 0.9}, {"muon_rms": 0.2})
    ),
    *(
        (OptimConfig, {"weight_decay": 0.0, "name": name}, {"decay": "matrices"}, "optim.weight_decay above 0")
        for name in ("adamw", "muon")
    ),
    *(
        (OptimConfig, {"schedule": "constant"}, unused, "optim.schedule cosine, linear or wsd")
        for unused in ({"warmup": 0.1}, {"end_factor": 0.1})
    ),
    (OptimConfig, {"schedule": "linear"}, {"cooldown": 0.1}, "optim.schedule wsd"),
    (OptimConfig, {"cooldown": 0.0, "schedule": "wsd"}, {"end_factor": 0.1}, "optim.cooldown above 0"),
    *(
        (OptimConfig, {"schedule": schedule}, {"boundaries": (0.5,), "factors": (0.1,)}, "optim.schedule piecewise")
        for schedule in ("constant", "cosine", "linear", "wsd")
    ),
    (CountsConfig, {"smoothing": "kneser-ney"}, {"add_k": 0.5}, "model.smoothing add-k"),
    (MlpConfig, {"init": "normal"}, {"gain": 1.0}, "model.init scaled"),
    (MlpConfig, {"init": "normal"}, {"out_gain": 1.0}, "model.init scaled"),
    (Word2vecConfig, {"output": "hierarchical-softmax"}, {"negatives": 7}, "model.output negative-sampling"),
    (Word2vecConfig, {"output": "hierarchical-softmax"}, {"shared_negatives": 7}, "model.output negative-sampling"),
    (Word2vecConfig, {"output": "hierarchical-softmax"}, {"exponent": 1.0}, "model.output negative-sampling"),
    (Word2vecConfig, {"predict": "skip-gram"}, {"cbow_average": "sum"}, "model.predict cbow"),
    *(
        (ReanConfig, {"objective": objective}, {"negatives": 7}, "model.objective contrastive")
        for objective in ("softmax", "vmf", "cosine", "mse")
    ),
    *(
        (ReanConfig, {"objective": objective}, {"scale": 7.0}, "model.objective softmax or contrastive")
        for objective in ("vmf", "cosine", "mse")
    ),
    (ReanConfig, {"table": "learned"}, {"rows": "raw"}, "model.table frozen or tuned"),
    (ReanConfig, {"table": "random"}, {"rows": "unit"}, "model.table frozen or tuned"),
    (DataConfig, {"kind": "lines"}, {"labels": ("a", "b")}, "data.kind dialogues"),
    (DataConfig, {"example": "window"}, {"max_length": 9}, "data.example sequence"),
    (DataConfig, {"path": "a.txt"}, {"name": "makemore"}, "data.path None"),
    (DataConfig, {"path": None}, {"encoding": "cp1252"}, "data.path FILE"),
]
USED: list[tuple[Any, dict[str, Any]]] = [
    (OptimConfig, {"name": "adamw", "betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.1}),
    (OptimConfig, {"schedule": "cosine", "warmup": 0.1, "end_factor": 0.1, "momentum": 0.9}),
    (OptimConfig, {"name": "muon", "muon_lr": 0.1, "muon_momentum": 0.9, "muon_rms": 0.2, "betas": (0.9, 0.98)}),
    (OptimConfig, {"name": "adamw", "weight_decay": 0.1, "decay": "matrices"}),
    (OptimConfig, {"schedule": "linear", "end_factor": 0.1, "warmup": 0.1}),
    (OptimConfig, {"schedule": "wsd", "end_factor": 0.1, "warmup": 0.1, "cooldown": 0.3}),
    (OptimConfig, {"z_loss": 1e-4, "accumulate": 4, "ema": 0.99, "skip_nonfinite": 3}),
    (OptimConfig, {"schedule": "piecewise", "boundaries": (0.5,), "factors": (0.1,)}),
    (CountsConfig, {"add_k": 0.5}),
    (MlpConfig, {"init": "scaled", "gain": 1.0, "out_gain": 1.0}),
    (Word2vecConfig, {"predict": "cbow", "cbow_average": "sum"}),
    (Word2vecConfig, {"negatives": 7, "shared_negatives": 8, "exponent": 1.0}),
    (ReanConfig, {"objective": "contrastive", "negatives": 7, "scale": 7.0}),
    (ReanConfig, {"objective": "softmax", "scale": 7.0}),
    (ReanConfig, {"table": "frozen", "vectors": "v.txt", "rows": "raw"}),
    (DataConfig, {"kind": "dialogues", "labels": ("a", "b"), "example": "sequence", "max_length": 9}),
    (DataConfig, {"name": "makemore"}),
    (DataConfig, {"path": "a.txt", "encoding": "cp1252"}),
]


@pytest.mark.parametrize(("make", "here", "unused", "wanted"), UNUSED, ids=str)
def test_a_setting_without_effect_is_refused_and_its_default_is_not(make, here, unused, wanted):
    with pytest.raises(UserError) as caught:
        make(**here, **unused)
    message = str(caught.value)
    decides = next(iter(here))
    assert f"no effect with {wanted.split()[0]} " in message and str(here[decides]) in message
    assert f"only with {wanted}:" in message and "\n" not in message
    for name in unused:
        assert f".{name} {unused[name]}" in message and f".{name.replace('_', '-')}" in message
    defaults = {field.name: field.default for field in dataclasses.fields(make)}
    make(**here, **{name: defaults[name] for name in unused})


@pytest.mark.parametrize(("make", "settings"), USED, ids=str)
def test_a_setting_with_an_effect_is_taken(make, settings):
    made = make(**settings)
    assert {name: getattr(made, name) for name in settings} == settings


def test_samples_are_a_language_models():
    with pytest.raises(UserError, match=r"^sample\.temperature 0.5 has no effect with a Word2vecConfig, only with a "):
        RunConfig(
            model=Word2vecConfig(),
            data=DataConfig(tokens=WordsConfig()),
            steps=1,
            sample=SampleConfig(temperature=0.5),
        )


def test_the_line_says_what_to_give_on_the_command_line(tmp_path):
    path = tmp_path / "adamw.py"
    path.write_text(
        "from jaxlm import MlpConfig, OptimConfig, RunConfig\n"
        "optim = OptimConfig(name='adamw', betas=(0.9, 0.98), weight_decay=0.1)\n"
        "config = RunConfig(model=MlpConfig(), optim=optim, steps=3)\n"
    )
    args = [str(path), "--optim.name", "sgd"]
    with pytest.raises(UserError) as caught:
        parse_train(args)
    assert str(caught.value) == (
        "optim.betas (0.9, 0.98) and optim.weight_decay 0.1 have no effect with optim.name sgd, only with optim.name "
        "adamw or muon: leave them out, or set the defaults with --optim.betas 0.9 0.999 --optim.weight-decay 0.0"
    )
    command = parse_train([*args, *str(caught.value).rpartition("with ")[2].split()])
    assert command is not None and command.config.optim == OptimConfig(name="sgd")


def test_the_defaults_of_boundaries_can_be_given_on_the_command_line():
    args = [str(REPOSITORY / "configs" / "names_mlp.py"), "--optim.schedule", "constant"]
    with pytest.raises(UserError, match=r"have no effect with optim\.schedule constant") as caught:
        parse_train(args)
    command = parse_train([*args, *str(caught.value).rpartition("with ")[2].split()])
    assert command is not None and command.config.optim == OptimConfig()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        (
            "--model.vectors-from.model.window",
            "0",
            "model.vectors_from.model.window wants a number from 1 to 100, got 0",
        ),
        ("--data.tokens.min-count", "0", "data.tokens.min_count wants a number >= 1, got 0"),
        ("--model.vectors-from.epochs", "0", "model.vectors_from.epochs wants a number > 0, got 0.0"),
        (
            "--model.vectors-from.optim.schedule",
            "constant",
            "model.vectors_from.optim.end_factor 0.004 has no effect with model.vectors_from.optim.schedule constant, "
            "only with model.vectors_from.optim.schedule cosine, linear or wsd: leave it out, or set the default with "
            "--model.vectors-from.optim.end-factor 0.0",
        ),
        ("--model.n-heads", "7", "model.d_model wants a multiple of the 7 heads, got 96"),
    ],
)
def test_a_setting_of_a_group_within_a_group_has_its_whole_name(option, value, message):
    with pytest.raises(UserError) as caught:
        parse_train([str(REPOSITORY / "configs" / "rean_dialogues.py"), option, value])
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("file", "args", "expected"),
    [
        ({"name": "makemore"}, ["--data.path", "a.txt"], {"path": "a.txt"}),
        ({"name": "makemore"}, ["--data.path=a.txt"], {"path": "a.txt"}),
        ({"path": "b.txt"}, ["--data.name", "makemore"], {"name": "makemore"}),
        ({"path": "b.txt"}, [], {"path": "b.txt"}),
    ],
)
def test_a_text_on_the_command_line_stands_in_for_the_files(tmp_path, file, args, expected):
    path = tmp_path / "text.py"
    path.write_text(f"from jaxlm import *\nconfig = RunConfig(model=CountsConfig(), data=DataConfig(**{file}))\n")
    command = parse_train([str(path), *args])
    assert command is not None and command.config.data == DataConfig(**expected)


def test_a_users_own_default_is_none_of_ours():
    @dataclasses.dataclass(frozen=True)
    class OwnConfig(CountsConfig):
        add_k: float = 0.25
        smoothing: Any = "kneser-ney"

    assert isinstance(OwnConfig(), ModelConfig)
    with pytest.raises(UserError, match=r"set the default with --model\.add-k 0\.25$"):
        OwnConfig(add_k=1.0)
