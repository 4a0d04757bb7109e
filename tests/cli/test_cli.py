"""Loading config files, overriding settings, and one line for each mistake."""

import dataclasses
import os
from pathlib import Path
from typing import Annotated

import pytest
import tyro

from jaxlm.cli.parsing import parse
from jaxlm.cli.train_command import TrainCommand, load_config, parse_train
from jaxlm.config import CountsConfig, MlpConfig, RunConfig
from jaxlm.errors import UserError

MLP = """
from jaxlm import MlpConfig, RunConfig
config = RunConfig(model=MlpConfig(), steps=100)
"""
COUNTS = MLP.replace("MlpConfig", "CountsConfig").replace(", steps=100", "")


@pytest.fixture
def mlp(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(MLP)
    return str(path)


def fails(args, match):
    with pytest.raises(UserError, match=match) as caught:
        parse_train(args)
    message = str(caught.value)
    assert "\n" not in message
    assert "  " not in message
    assert "│" not in message
    return message


def parsed(args) -> TrainCommand:
    command = parse_train(args)
    assert command is not None
    return command


def test_a_config_file_is_taken_as_it_is(mlp):
    command = parsed([mlp])
    assert command.config == RunConfig(model=MlpConfig(), steps=100, run_dir="runs/tiny")
    assert not command.restart
    assert not command.dry_run


def test_settings_override_the_file(mlp):
    args = "--seed 7 --steps 5 --batch-size 9 --run-dir r --data.path t.txt --data.kind stream --data.split 1 0 0"
    args += " --optim.lr 0.05 --model.context 4 --eval.every 3 --restart --dry-run"
    command = parsed([mlp, *args.split()])
    config = command.config
    assert (config.seed, config.steps, config.batch_size, config.run_dir) == (7, 5, 9, "r")
    assert (config.data.path, config.data.kind, config.data.split) == ("t.txt", "stream", (1.0, 0.0, 0.0))
    assert (config.optim.lr, config.model, config.eval.every) == (0.05, MlpConfig(context=4), 3)
    assert command.restart
    assert command.dry_run


@pytest.mark.parametrize("flag, plots", [("--plots", True), ("--no-plots", False)])
@pytest.mark.parametrize("file", [True, False])
def test_a_setting_that_is_true_or_false_can_be_given_either_way_whatever_the_file_says(tmp_path, file, flag, plots):
    path = tmp_path / "own.py"
    path.write_text(f"import jaxlm\nconfig = jaxlm.RunConfig(model=jaxlm.MlpConfig(), steps=1, plots={file})\n")
    assert parsed([str(path), flag]).config.plots is plots


def test_the_settings_of_counts_are_the_contracts(tmp_path):
    path = tmp_path / "counts.py"
    path.write_text(COUNTS)
    command = parsed([str(path), "--model.order", "3", "--model.add-k", "0.5", "--model.smoothing", "add-k"])
    assert command.config.model == CountsConfig(order=3, add_k=0.5, smoothing="add-k")


def test_a_batch_can_be_all_of_train(mlp):
    assert parsed([mlp, "--batch-size", "full"]).config.batch_size == "full"


@pytest.mark.parametrize(
    ("args", "steps", "epochs"),
    [
        ([], 100, None),
        (["--epochs", "2"], None, 2.0),
        (["--epochs=0.5"], None, 0.5),
        (["--steps", "7"], 7, None),
        (["--steps=7"], 7, None),
    ],
)
def test_epochs_stand_in_for_the_files_steps(mlp, args, steps, epochs):
    config = parsed([mlp, *args]).config
    assert (config.steps, config.epochs) == (steps, epochs)


def test_steps_stand_in_for_the_files_epochs(tmp_path):
    path = tmp_path / "epochs.py"
    path.write_text(MLP.replace("steps=100", "epochs=3.0"))
    assert (parsed([str(path)]).config.steps, parsed([str(path)]).config.epochs) == (None, 3.0)
    config = parsed([str(path), "--steps", "7"]).config
    assert (config.steps, config.epochs) == (7, None)
    config = parsed([str(path), "--epochs", "4"]).config
    assert (config.steps, config.epochs) == (None, 4.0)


def test_tokens_stand_in_for_the_files_steps_and_rows(mlp, tmp_path):
    config = parsed([mlp, "--tokens", "1e9", "--batch-tokens", "524288"]).config
    assert (config.steps, config.tokens, config.batch_size, config.batch_tokens) == (None, 1e9, 32, 524288.0)
    path = tmp_path / "tokens.py"
    path.write_text(MLP.replace("steps=100", "tokens=1e6, batch_tokens=4096"))
    config = parsed([str(path), "--steps", "7", "--batch-size", "8"]).config
    assert (config.steps, config.tokens, config.batch_size, config.batch_tokens) == (7, None, 8, None)
    fails([mlp, "--tokens", "1e9", "--steps", "3"], r"^steps and tokens exclude each other, got steps 3 and tokens")
    fails([mlp, "--batch-tokens", "64", "--batch-size", "8"], r"^batch_size and batch_tokens exclude each other")


def test_steps_and_epochs_together_are_refused(mlp):
    fails([mlp, "--steps", "3", "--epochs", "2"], r"^steps and epochs exclude each other, got steps 3 and epochs 2\.0$")


@pytest.mark.parametrize(
    ("args", "near"),
    [
        (["--stepz", "3"], "--steps"),
        (["--stepz=3"], "--steps"),
        (["--optim.lrr", "0.1"], "--optim.lr"),
        (["--model.contxt", "3"], "--model.context"),
        (["--data.pth", "x.txt"], "--data.path"),
        (["--batchsize", "3"], "--batch-size"),
        (["--restrat"], "--restart"),
        (["--optim.lrr", "0.1", "--stepz", "3"], "--optim.lr"),
    ],
)
def test_an_unknown_setting_is_answered_with_the_nearest(mlp, args, near):
    wrong = args[0].partition("=")[0]
    fails([mlp, *args], rf"^{wrong}(=3)? is not a setting \(did you mean {near}\?\)$")


@pytest.mark.parametrize("args", [["--zzzqqq"], ["extra"], ["-x"]])
def test_an_unknown_argument_with_nothing_near_points_to_help(mlp, args):
    fails([mlp, *args], rf"^{args[0]} is not a setting \(see --help\)$")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--optim.lr"], r"Missing value for argument '--optim\.lr'\. Expected 1 values \(see --help\)"),
        (["--data.split", "1", "0"], r"Missing value for argument '--data\.split'\. Expected 3 values \(see --help\)"),
        (
            ["--data.kind", "linse"],
            r"--data\.kind wants lines, stream or dialogues, got 'linse' \(did you mean lines\?\)",
        ),
        (["--device", "tpuu"], r"--device wants auto, cpu, gpu or tpu, got 'tpuu' \(did you mean tpu\?\)"),
        (["--device", "quantum"], r"--device wants auto, cpu, gpu or tpu, got 'quantum'"),
    ],
)
def test_a_value_that_is_missing_or_no_choice_is_named_with_its_setting_in_a_line(mlp, args, message):
    fails([mlp, *args], f"^{message}$")


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        (["--optim.lr", "abc"], "a number, got 'abc'"),
        (["--steps", "1e3"], "None or a whole number, got '1e3'"),
        (["--epochs", "many"], "None or a number, got 'many'"),
        (["--batch-size", "ful"], "a whole number or full, got 'ful'"),
        (["--seed", "1.0"], "a whole number, got '1.0'"),
        (["--data.split", "1", "0", "x"], "numbers, got '1', '0', 'x'"),
        (["--optim.factors", "x"], "numbers, got 'x'"),
    ],
)
def test_an_ill_typed_value_is_told_with_what_was_wanted(mlp, args, wanted):
    fails([mlp, *args], rf"^{args[0]} wants {wanted}$")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--optim.lr -1", "optim.lr wants a number > 0, got -1.0"),
        ("--data.split .8 .1 .2", "data.split wants three shares from 0 to 1 that add up to 1, got 0.8 0.1 0.2"),
        ("--model.context 0", "model.context wants a number from 1 to 65535, got 0"),
        ("--batch-size 0", "batch_size wants a number from 1 to 16777216, got 0"),
        ("--epochs 0", "epochs wants a number > 0, got 0.0"),
        ("--seed -1", "seed wants a number from 0 to 4294967295, got -1"),
        ("--sample.temperature -2", "sample.temperature wants a number >= 0, got -2.0"),
    ],
)
def test_a_value_out_of_range_gives_the_settings_own_message(mlp, args, message):
    assert fails([mlp, *args.split()], "wants") == message


def test_help_exits_with_zero_and_lists_settings(mlp, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_train([mlp, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("--optim.lr", "--model.d-hidden", "--restart", "--dry-run"))


def test_help_without_a_config_lists_the_configs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert parse_train(["--help"]) is None
    assert "no configs/ here" in capsys.readouterr().out
    Path("configs").mkdir()
    Path("configs/mine.py").write_text(MLP)
    assert parse_train(["-h"]) is None
    shown = capsys.readouterr().out
    assert "usage: train.py CONFIG" in shown
    assert "configs/mine.py" in shown


def test_the_config_comes_first(capsys):
    fails([], "^config wants a file")
    fails(["--steps", "3"], "^config wants a file as the first argument, got '--steps'")


def test_a_missing_config_is_answered_with_the_nearest_file(tmp_path):
    (tmp_path / "names_mlp.py").write_text(MLP)
    fails(
        [str(tmp_path / "names_mpl.py")],
        r"^config '.*names_mpl\.py' does not exist \(did you mean '.*names_mlp\.py'\?\)$",
    )
    fails([str(tmp_path)], "^config '.*' is not a file")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\n", r"^config '.*bad\.py' wants a line `config = RunConfig\(\.\.\.\)`, got none$"),
        ("config = 3\n", r"^config '.*bad\.py' wants a line `config = RunConfig\(\.\.\.\)`, got 3$"),
        ("x = 1\n\nconfig = (\n", r"^config '.*bad\.py' does not parse: .* \(line 3\)$"),
        ("def f():\nreturn 1\n", r"^config '.*bad\.py' does not parse: .* \(line 2\)$"),
        ("raise KeyError('x')\n", r"^config '.*bad\.py' fails as it is loaded: .*bad\.py, line 1: KeyError: 'x'$"),
        (
            "import no_such_module\n",
            r"^config '.*bad\.py' fails as it is loaded: .*line 1: ModuleNotFoundError: .*no_such_module",
        ),
        (
            MLP.replace("steps", "stepz"),
            r"^config '.*bad\.py': RunConfig has no setting 'stepz' \(did you mean 'steps'\?\)$",
        ),
        (MLP.replace("100", "5.5"), r"^config '.*bad\.py': steps wants a whole number or None, got 5\.5$"),
        (MLP.replace("100", "0"), r"^config '.*bad\.py': steps wants a number from 1 to 2147483647, got 0$"),
        (MLP.replace(", steps=100", ""), r"^config '.*bad\.py': steps wants a number of updates"),
        ("x = 1 is 1\n", r"got none$"),
    ],
)
def test_a_config_file_that_cannot_be_used_is_refused_in_a_line(tmp_path, source, message):
    path = tmp_path / "bad.py"
    path.write_text(source)
    fails([str(path)], message)


def test_a_config_that_is_no_python_file_is_refused(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("emma\n")
    assert fails([str(path)], "Python file") == f"config {str(path)!r} wants a Python file (.py)"


def test_a_config_file_may_be_loaded_twice_and_in_a_folder_of_any_name(tmp_path):
    path = tmp_path / "my runs" / "größe-1.py"
    path.parent.mkdir()
    path.write_text(MLP)
    assert load_config(path) == load_config(path)
    assert parsed([str(path)]).config.run_dir == os.path.join("runs", "größe-1")  # noqa: PTH118


@dataclasses.dataclass(frozen=True)
class Answer:
    """Another command."""

    run: Annotated[str, tyro.conf.Positional]
    n: int = 20
    flag: bool = False


def test_other_commands_are_parsed_by_the_same_rules():
    assert parse(Answer, ["runs/x", "--n", "3", "--flag"], prog="sample.py") == Answer("runs/x", 3, True)
    with pytest.raises(UserError, match=r"^--falg is not a setting \(did you mean --flag\?\)$"):
        parse(Answer, ["runs/x", "--falg"], prog="sample.py")
    with pytest.raises(UserError, match=r"RUN.* \(see --help\)$|run.* \(see --help\)$"):
        parse(Answer, [], prog="sample.py")


def test_defaults_are_those_given():
    assert parse(Answer, ["--n", "3"], prog="sample.py", default=Answer("runs/y", 5, True)) == Answer("runs/y", 3, True)
