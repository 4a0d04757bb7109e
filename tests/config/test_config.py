"""Ranges of settings."""

import ast
import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import pytest

import jaxlm
from jaxlm.config import (
    CheckpointConfig,
    CountsConfig,
    DataConfig,
    EvalConfig,
    FaithfulReanConfig,
    MlpConfig,
    NgramConfig,
    OptimConfig,
    ReanConfig,
    RunConfig,
    SampleConfig,
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
    (OptimConfig, "optim.", {"lr": [0, -0.1, NAN, 1e39], "momentum": [-0.1, 1.1, NAN], "eps": [0, -1e-8, NAN]}),
    (OptimConfig, "optim.", {"betas": [(-0.1, 0.9), (0.9, 1.1), (NAN, 0.9), (1.0, 0.9), (0.9, 1.0)]}),
    (OptimConfig, "optim.", {"weight_decay": [-0.1, NAN, INF], "clip": [0, -1, NAN], "l2": [-0.1, NAN, INF]}),
    (OptimConfig, "optim.", {"warmup": [-0.1, NAN, INF], "end_factor": [-0.1, 1.1, NAN]}),
    (EvalConfig, "eval.", {"every": [0, -5], "log_every": [0], "max_tokens": [0], "patience": [0, -1]}),
    (CheckpointConfig, "checkpoint.", {"every": [0], "keep": [0]}),
    (SampleConfig, "sample.", {"n": [-1], "temperature": [-0.1, NAN, 1e300], "max_tokens": [0]}),
    (CountsConfig, "model.", {"order": [0], "add_k": [-0.1, NAN, INF], "vocab_size": [0, -3]}),
    (NgramConfig, "model.", {"order": [1, 29, 10**9], "init_scale": [-0.1, NAN, INF], "vocab_size": [0]}),
    (MlpConfig, "model.", {"context": [0], "d_embed": [0], "d_hidden": [0], "vocab_size": [0]}),
    (run, "", {"seed": [-1, 2**32], "steps": [0, -1], "epochs": [0, -0.5, NAN, INF, 1e308]}),
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
        (DataConfig, {"example": "sequence", "max_length": 1, "split": (1.0, 0.0, 0.0)}),
        (DataConfig, {"split": (1 / 3, 1 / 3, 1 / 3)}),
        (OptimConfig, {"name": "adamw", "betas": (0.0, 0.0), "weight_decay": 0, "l2": 0, "clip": None}),
        (OptimConfig, {"momentum": 0, "schedule": "linear", "end_factor": 1}),
        (OptimConfig, {"momentum": 1, "schedule": "cosine", "end_factor": 0, "warmup": 0}),
        (OptimConfig, {"schedule": "piecewise", "boundaries": (0,), "factors": (0,)}),
        (EvalConfig, {"every": 1, "log_every": None, "max_tokens": 1, "patience": 1}),
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
        ({"boundaries": (-1,), "factors": (0.1,)}, "optim.boundaries wants a number from 0 to 2147483647, got -1"),
        (
            {"boundaries": (0.5,), "factors": (-0.1,)},
            r"optim.factors wants a number from 0 to 3.4e\+38, got -0.1",
        ),
        (
            {"boundaries": (INF,), "factors": (0.1,)},
            "optim.boundaries wants a number .* got inf",
        ),
    ],
)
def test_boundaries_and_factors_go_in_pairs(settings, message):
    with pytest.raises(UserError, match=f"^{message}"):
        OptimConfig(**settings)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ReanConfig(table="frozen"), r"wants to be set for model\.table frozen or tuned"),
        (lambda: ReanConfig(vectors="f"), r"wants to be set for model\.table frozen or tuned"),
        (lambda: ReanConfig(d_model=10, n_heads=4), "model.d_model wants a multiple of the 4 heads, got 10"),
        (lambda: ReanConfig(scale=0.0), "model.scale wants a number > 0"),
        (lambda: FaithfulReanConfig(d_embed=12), "model.d_embed wants an even number that the 8 heads divide, got 12"),
        (lambda: FaithfulReanConfig(attentions=0), "model.attentions wants a number >= 1"),
    ],
)
def test_settings_of_rean_that_do_not_fit_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_a_number_that_float32_does_not_hold_is_told_the_largest():
    with pytest.raises(UserError, match=r"^optim\.lr wants a number > 0 and at most 3\.4e\+38, got 1e\+39$"):
        OptimConfig(lr=1e39)


def test_epochs_of_more_steps_than_can_be_counted_are_refused_by_name():
    assert run(epochs=2.0**31).in_steps(31, 32).steps == 31 * 2**26
    with pytest.raises(UserError, match=r"^epochs wants a number up to 4\.29e\+09 for .*, got 4300000000\.0$"):
        run(epochs=4.3e9).in_steps(16, 32)


def test_steps_and_epochs_exclude_each_other():
    with pytest.raises(UserError, match=r"steps and epochs exclude each other, got steps 3 and epochs 2\.0"):
        run(steps=3, epochs=2.0)


def test_lengths_in_tokens_are_turned_into_rows_and_steps():
    """As many whole rows as fit, a multiple of what devices and micro-batches divide; steps round up."""
    config = RunConfig(model=MlpConfig(), tokens=1e6, batch_tokens=5000)
    inside = config.in_rows(100, 4)
    assert (inside.batch_size, inside.batch_tokens) == (48, None)
    assert config.in_rows(100, 1).batch_size == 50 and config.in_rows(5000, 1).batch_size == 1
    resolved = inside.in_steps(10, 48, 100)
    assert (resolved.steps, resolved.tokens, resolved.last_step) == (209, None, 209)
    assert run(steps=7).in_steps(10, 48, 100).steps == 7 and run(epochs=2.0).in_steps(480, 48, 100).steps == 20
    with pytest.raises(UserError, match=r"^batch_tokens wants at least 6,400, those of 64 rows of 100, got 5,000$"):
        config.in_rows(100, 64)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"batch_size": 64, "batch_tokens": 512.0},
            "^batch_size and batch_tokens exclude each other, got batch_size",
        ),
        ({"batch_size": "full", "batch_tokens": 512.0}, "^batch_size and batch_tokens exclude each other"),
        ({"batch_tokens": 0.5}, "^batch_tokens wants a number >= 1, got 0.5"),
        ({"tokens": 0}, "^tokens wants a number >= 1, got 0"),
        ({"tokens": 1e6, "steps": 3}, "^steps and tokens exclude each other, got steps 3 and tokens 1000000.0"),
        ({"tokens": 1e6, "epochs": 3}, "^epochs and tokens exclude each other"),
        ({"optim": OptimConfig(accumulate=3)}, "^batch_size wants a multiple of the 3 micro-batches .*, got 32"),
    ],
)
def test_lengths_and_batches_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        RunConfig(**{"model": MlpConfig()} | ({} if {"tokens"} & settings.keys() else {"steps": 1}) | settings)


@pytest.mark.parametrize("name", ["tokens", "batch_tokens"])
def test_lengths_in_tokens_are_a_language_models_that_is_trained_by_steps(name):
    with pytest.raises(UserError, match=rf"^{name} wants a language model that is trained by steps, got a Co"):
        RunConfig(model=CountsConfig(), **{name: 1e6})  # type: ignore[arg-type]


def test_a_model_trained_by_steps_wants_a_length_and_counts_do_not():
    with pytest.raises(UserError, match=r"^steps wants a number of updates \(or give epochs or tokens\), got none"):
        RunConfig(model=MlpConfig())
    assert RunConfig(model=MlpConfig(), epochs=1.0).steps is None
    assert RunConfig(model=CountsConfig()).steps is None


def test_counts_start_from_no_parameters():
    with pytest.raises(UserError, match=r"^init_from wants a model that is trained by steps, got 'r' for a Co"):
        RunConfig(model=CountsConfig(), init_from="r")


@pytest.mark.parametrize("name", ["run_dir", "init_from"])
def test_a_directory_without_a_name_is_no_default(name):
    """As a shell's unset variable gives."""
    with pytest.raises(UserError, match=rf"^{name} wants a directory, got ''"):
        RunConfig(model=MlpConfig(), steps=1, **{name: ""})  # type: ignore[arg-type]


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


def test_what_help_says_of_a_setting_has_line_ends_between_sentences_only():
    package = Path(jaxlm.__file__).parent
    said = [
        str(text.value.value)
        for path in (*package.glob("config/*.py"), *package.glob("cli/*.py"), package / "exercises/__main__.py")
        for kind in ast.walk(ast.parse(path.read_text()))
        if isinstance(kind, ast.ClassDef)
        for field, text in itertools.pairwise(kind.body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    ]
    assert len(said) > 100
    assert [text for text in said if any(not line.endswith(".") for line in text.split("\n"))] == []
