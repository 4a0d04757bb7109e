"""Vectors on the command line: those that are given take the place of those that a config file trains first."""

import pytest

import jaxlm
from jaxlm.cli.sample import answer
from jaxlm.cli.sample_command import parse_sample
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


def test_bad_rows_of_a_file_are_left_out_where_the_user_says_so(tmp_path, capsys):
    (tmp_path / "x.txt").write_text("king 1 2 3\nqueen 3 2 1\n<unk> nan nan nan\n")
    args = [str(tmp_path / "x.txt"), "--similar", "king"]
    with pytest.raises(jaxlm.UserError, match=r"line 3 \('<unk>'\) wants finite numbers, got 'nan' .*--skip-bad-rows"):
        answer(parse_sample(args))
    answer(parse_sample([*args, "--skip-bad-rows"]))
    shown = capsys.readouterr()
    assert shown.out == "queen  0.7143\n" and "1 bad row is left out: line 3" in shown.err


def test_bad_rows_are_a_files_alone(mlp_run):
    with pytest.raises(jaxlm.UserError, match="--skip-bad-rows is for vectors of words"):
        answer(parse_sample([str(mlp_run.path), "--skip-bad-rows"]))
