"""Vectors on the command line: those that are given take the place of those that a config file trains first."""

import pytest

import jaxlm
from jaxlm.cli.sweep_command import parse_sweep
from jaxlm.cli.train_command import parse_range, parse_train


@pytest.fixture
def rean(tmp_path):
    """A config file whose vectors are trained."""
    path = tmp_path / "rean.py"
    path.write_text(
        "from jaxlm import DataConfig, ReanConfig, ReanTokensConfig, RunConfig, VectorsConfig\n"
        "config = RunConfig(model=ReanConfig(table='tuned', vectors_from=VectorsConfig(epochs=3.0)),\n"
        "    data=DataConfig(tokens=ReanTokensConfig()), steps=100)\n"
    )
    return str(path)


@pytest.mark.parametrize(
    ("args", "vectors", "epochs"),
    [
        ([], None, 3.0),
        (["--model.vectors", "a=b.bin"], "a=b.bin", None),
        (["--model.vectors=a=b.bin"], "a=b.bin", None),
        (["--model.vectors", "None"], None, 3.0),
        (["--model.vectors-from.epochs", "2"], None, 2.0),
    ],
)
def test_given_vectors_stand_in_for_the_files_training_of_some(rean, args, vectors, epochs):
    trained = None if epochs is None else jaxlm.VectorsConfig(epochs=epochs)
    model = jaxlm.ReanConfig(table="tuned", vectors=vectors, vectors_from=trained)
    for parse in (parse_train, parse_range):
        command = parse([rean, *args])
        assert command is not None and command.config.model == model


def test_a_sweep_goes_from_trained_vectors_to_given_ones(rean):
    runs = parse_sweep([rean, "--sweep.model.vectors", "None", "a.bin"]).runs
    assert [run.config.model for run in runs] == [
        jaxlm.ReanConfig(table="tuned", vectors_from=jaxlm.VectorsConfig(epochs=3.0)),
        jaxlm.ReanConfig(table="tuned", vectors="a.bin"),
    ]


@pytest.mark.parametrize("how", ["--model.vectors-from.epochs", "--model.vectors_from.epochs"])
def test_vectors_and_a_training_of_some_together_are_refused(rean, how):
    with pytest.raises(jaxlm.UserError, match=r"^[^\n]*exclude each other: give one of them, got 'a\.bin' and [^\n]*$"):
        parse_train([rean, "--model.vectors", "a.bin", how, "2"])
