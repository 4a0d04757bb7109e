"""Sweeps: every combination is one ordinary run, all are checked first, and a sweep goes on where it stopped."""

import itertools
import json
import math
import shlex
import signal
from pathlib import Path

import pytest

from jaxlm import training
from jaxlm.cli import train as train_command
from jaxlm.cli.sweep_command import parse_sweep
from jaxlm.config import CountsConfig
from jaxlm.errors import NonFiniteLoss, Stopped, UserError
from jaxlm.runs.directory import RunDir
from jaxlm.sweep import sweep
from tests import processes
from tests.conftest import NAMES
from tests.processes import tree

CONFIG = """
from jaxlm import CountsConfig, DataConfig, MlpConfig, RunConfig, SampleConfig
config = RunConfig(
    model=MlpConfig(context=2, d_embed=2, d_hidden=4),
    data=DataConfig(path={text!r}),
    sample=SampleConfig(n=0),
    steps=5,
    batch_size=4,
    plots=False,
    run_dir={run!r},
)
"""
LR = ["--sweep.optim.lr", "0.01", "0.3"]


@pytest.fixture
def config(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(NAMES))
    path = tmp_path / "tiny.py"
    path.write_text(CONFIG.format(text=str(tmp_path / "text.txt"), run=str(tmp_path / "runs" / "tiny")))
    return str(path)


@pytest.fixture
def asked(monkeypatch):
    """The configs that would be trained; none is."""
    configs = []
    monkeypatch.setattr(training, "train", lambda config, **rest: configs.append(config))
    return configs


def names(runs):
    return [Path(str(run.config.run_dir)).name for run in runs]


def test_every_combination_is_a_run_in_a_directory_of_its_own(config, tmp_path):
    args = ["--seed", "7", *LR, "--batch-size", "8", "--sweep.model.d-hidden", "5", "6", "--restart"]
    command = parse_sweep([config, *args])
    assert names(command.runs) == [
        f"tiny-optim.lr={lr},model.d_hidden={width}" for lr in ("0.01", "0.3") for width in (5, 6)
    ]
    assert {Path(str(run.config.run_dir)).parent for run in command.runs} == {tmp_path / "runs"}
    got = [(run.config.optim.lr, getattr(run.config.model, "d_hidden", None)) for run in command.runs]
    assert got == [(0.01, 5), (0.01, 6), (0.3, 5), (0.3, 6)]
    assert all(run.config.seed == 7 and run.config.batch_size == 8 for run in command.runs)
    assert [run.values for run in command.runs[:1]] == [{"optim.lr": 0.01, "model.d_hidden": 5}]
    assert command.restart and not command.dry_run


@pytest.mark.parametrize(
    ("args", "values"),
    [
        ("--sweep.data.split '0.8 0.1 0.1' '1 0 0'", [(0.8, 0.1, 0.1), (1.0, 0.0, 0.0)]),
        ("--sweep.plots true False", [True, False]),
        ("--sweep.tensorboard true false", [True, False]),
        ("--sweep.batch_size 8 full", [8, "full"]),
        ("--sweep.optim.clip None 1", [None, 1.0]),
        ("--sweep.epochs 2 3", [2.0, 3.0]),
    ],
)
def test_values_of_every_type(config, args, values):
    runs = parse_sweep([config, *shlex.split(args)]).runs
    assert [next(iter(run.values.values())) for run in runs] == values
    assert len(set(names(runs))) == len(values)


def test_a_path_does_not_nest_directories(config, tmp_path):
    runs = parse_sweep([config, "--sweep.data.path", "a/b c.txt", "d,e.txt"]).runs
    assert names(runs) == ["tiny-data.path=a_b_c.txt", "tiny-data.path=d_e.txt"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--sweep.optim.lrr 1", r"--sweep\.optim\.lrr is not a setting \(did you mean --sweep\.optim\.lr\?\)"),
        ("--sweep.model.d_hiden 1", r"\(did you mean --sweep\.model\.d-hidden\?\)"),
        ("--sweep.optim.lr 0.1 abc", r"--optim\.lr.*'abc'"),
        ("--sweep.optim.lr 0.1 -1", r"optim\.lr wants a number > 0, got -1\.0"),
        ("--sweep.optim.lr", r"--sweep\.optim\.lr wants one value or more"),
        ("--sweep.optim.lr --seed 3", r"--sweep\.optim\.lr wants one value or more"),
        ("--sweep.optim.lr=0.1 0.2", r"--sweep\.optim\.lr=0\.1 wants .* after a space"),
        ("--sweep optim.lr 0.1", r"--sweep wants a setting's name"),
        ("--sweep.optim.lr 0.1 1e-1", r"two runs for '.*tiny-optim\.lr=0\.1': give each value once"),
        ("--sweep.optim.lr 1 --sweep.optim.lr 2", r"--sweep\.optim\.lr is given twice"),
        ("--sweep.optim.lr 1 --optim.lr 2", r"--sweep\.optim\.lr and --optim\.lr exclude each other"),
        ("--sweep.batch-size 1 --batch_size=2", r"--sweep\.batch-size and --batch_size exclude each other"),
        ("--sweep.plots true --no-plots", r"--sweep\.plots and --no-plots exclude each other"),
        ("--sweep.plots 1", r"--sweep\.plots wants true or false, got '1'"),
        ("--sweep.data.split 0.8 0.1 0.1", r"groups of 3 values in quotes.*\"0\.8 0\.1 0\.1\", got '0\.8'"),
        ("--sweep.run-dir a b", r"--sweep\.run-dir is not possible: give one --run-dir"),
        ("--sweep.optim.lr 1 --stepz 3", r"--stepz is not a setting \(did you mean --steps\?\)"),
        ("--sweep.steps 3 --epochs 2", r"steps and epochs exclude each other"),
        ("--sweep.seed " + " ".join(map(str, range(3))) + f" --run-dir {'x' * 225}", r"is too long for a name"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_trained(config, tmp_path, asked, args, message):
    before = tree(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        train_command.run([config, *shlex.split(args)])
    assert "\n" not in str(caught.value)
    assert asked == [] and tree(tmp_path) == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--sweep.data.path TEXT missing.txt", r"data\.path 'missing\.txt' does not exist"),
        ("--sweep.model.vocab-size 99 2", r"model\.vocab_size wants at least"),
    ],
)
def test_what_only_the_data_shows_is_found_before_the_first_run(config, tmp_path, asked, args, message):
    before = tree(tmp_path)
    with pytest.raises(UserError, match=message):
        train_command.run([config, *args.replace("TEXT", str(tmp_path / "text.txt")).split()])
    assert asked == [] and tree(tmp_path) == before


def test_a_directory_that_belongs_to_other_settings_is_found_before_the_first_run(config, tmp_path, asked):
    run = tmp_path / "runs" / "tiny-optim.lr=0.3"
    run.mkdir(parents=True)
    (run / "mine.txt").write_text("")
    before = tree(tmp_path)
    for restart in ([], ["--restart"]):
        with pytest.raises(UserError, match=r"tiny-optim\.lr=0\.3' exists and is not a run directory"):
            train_command.run([config, *LR, *restart])
    assert asked == [] and tree(tmp_path) == before


def test_a_dry_run_lists_the_runs_and_writes_nothing(config, tmp_path, asked, capsys):
    before = tree(tmp_path)
    assert train_command.run([config, *LR, "--dry-run"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown == ["2 runs:", *(f"  {tmp_path}/runs/tiny-optim.lr={lr}" for lr in ("0.01", "0.3"))]
    assert asked == [] and tree(tmp_path) == before


@pytest.mark.slow
def test_the_runs_are_trained_and_told_best_first(config, tmp_path, capsys, monkeypatch):
    text = Path(config).read_text()
    Path(config).write_text(text.replace("MlpConfig(context=2, d_embed=2, d_hidden=4)", "CountsConfig()"))
    add_k = ["--sweep.model.add-k", "9.0", "0.5"]
    assert train_command.run([config, *add_k]) == 0
    loss = {}
    for k in add_k[1:]:
        run = RunDir(tmp_path / "runs" / f"tiny-model.add_k={k}")
        assert run.read_config().model == CountsConfig(vocab_size=run.read_tokenizer().vocab_size, add_k=float(k))
        loss[k] = json.loads(run.eval.read_text())["dev"]["nats_per_token"]
    assert loss["0.5"] < loss["9.0"]
    shown = capsys.readouterr().out.splitlines()
    assert [line.split() for line in shown[-4:-1]] == [
        ["model.add_k", "dev"],
        *([k, f"{loss[k]:.4f}"] for k in ("0.5", "9.0")),
    ]
    assert shown[-1] == f"best: {tmp_path}/runs/tiny-model.add_k=0.5"
    # again: nothing is trained
    before = tree(tmp_path)
    assert train_command.run([config, *add_k, "--dry-run"]) == 0
    assert "tiny-model.add_k=0.5 (trained already)\n" in capsys.readouterr().out
    assert train_command.run([config, *add_k, "--dry-run", "--restart", "--seed", "6"]) == 0
    capsys.readouterr()
    assert train_command.run([config, *add_k]) == 0
    assert capsys.readouterr().out.endswith("\n".join(shown[-4:]) + "\n")
    assert tree(tmp_path) == before
    # with other settings: refused before a new run begins, unless all start over
    with pytest.raises(UserError, match=r"tiny-model\.add_k=9\.0' belongs to other .*seed: 0, now 6"):
        train_command.run([config, "--sweep.model.add-k", "3", "9", "--seed", "6"])
    assert tree(tmp_path) == before
    assert train_command.run([config, "--sweep.model.add-k", "9", "--seed", "6", "--restart"]) == 0
    run = tmp_path / "runs" / "tiny-model.add_k=9.0"
    assert RunDir(run).read_config().seed == 6
    assert RunDir(run.with_name(f"{run.name}.old")).read_config().seed == 0


def pretend(monkeypatch, losses, hashes="abc"):
    """A train that leaves these dev losses in turn, each of a text of its own where the hashes differ; NaN fails."""
    left = iter(zip(losses, itertools.cycle(hashes), strict=False))

    def train(config, **rest):
        loss, text = next(left)
        run = RunDir(Path(config.run_dir))
        run.path.mkdir(parents=True)
        run.fingerprint.write_text(json.dumps({"data": "d", "tokenizer": "t", "split": text, "settings": {}}))
        if loss is not None and math.isnan(loss):
            raise NonFiniteLoss("the loss is nan at step 3")
        dev = {"nats_per_token": loss, "tokens": 9, "bytes": 9}
        numbers = {"params": 5, "step": 1, "steps": 1, "train_time_s": 1.0}
        run.eval.write_text(json.dumps({"dev": dev, "train": None, "test": None, **numbers}))

    monkeypatch.setattr(training, "train", train)


@pytest.mark.slow
def test_a_run_that_breaks_is_told_and_the_sweep_goes_on(config, tmp_path, capsys):
    assert train_command.run([config, "--sweep.optim.lr", "1e38", "0.1"]) == 3
    shown = capsys.readouterr().out.splitlines()
    first, good, bad, best = shown[-4:]
    assert first.split() == ["optim.lr", "dev"]
    assert good.split()[0] == "0.1" and bad.split() == ["1e+38", "not", "a", "number"]
    assert best == f"best: {tmp_path}/runs/tiny-optim.lr=0.1"
    broken = tmp_path / "runs" / "tiny-optim.lr=1e+38"
    assert [line for line in shown if line.startswith(f"{broken} has no result: the loss is ")]
    assert not (broken / "eval.json").exists()


@pytest.mark.slow
def test_the_table_ends_with_the_runs_that_have_no_loss(config, monkeypatch, tmp_path):
    pretend(monkeypatch, [math.nan, None, 3.0, 2.0], "a")
    said: list[str] = []
    runs = parse_sweep([config, "--sweep.optim.lr", "1", "2", "3", "4"]).runs
    results = sweep(runs, log=said.append)
    assert [result.variant.values["optim.lr"] for result in results] == [4, 3, 2, 1]
    assert [line.split(maxsplit=1)[1] for line in said[-1].splitlines()] == [
        "dev",
        "2.0000",
        "3.0000",
        "inf",
        "not a number",
        f"{tmp_path}/runs/tiny-optim.lr=4.0",
    ]


@pytest.mark.slow
def test_a_sweep_without_any_loss_names_no_best(config, monkeypatch):
    pretend(monkeypatch, [math.nan, math.nan], "a")
    said: list[str] = []
    sweep(parse_sweep([config, *LR]).runs, log=said.append)
    assert said[-1].endswith("\nno run has a finite loss")


@pytest.mark.slow
def test_losses_of_different_texts_name_no_best(config, monkeypatch):
    pretend(monkeypatch, [1.0, 2.0], "ab")
    said: list[str] = []
    sweep(parse_sweep([config, "--sweep.data.split-seed", "1", "2"]).runs, log=said.append)
    assert said[-1].endswith("these losses do not compare") and "best" not in said[-1]


def test_a_signal_ends_the_sweep_with_the_command_to_go_on(config, monkeypatch, capsys):
    begun = []

    def stop(config, **rest):
        begun.append(config.run_dir)
        raise Stopped(signal.SIGTERM, 17)

    monkeypatch.setattr(training, "train", stop)
    assert train_command.run([config, *LR, "--restart"]) == 143
    told = capsys.readouterr().err
    assert len(begun) == 1
    assert shlex.split(told.partition("run: ")[2]) == ["python", "train.py", config, *LR]


@pytest.mark.slow
def test_a_signal_stops_a_sweep_as_a_run(tmp_path_factory, capsys):
    cli = processes.cli(tmp_path_factory)
    run = cli.base / "run-optim.lr=0.1"
    args = ["--run-dir", cli.base / "run", "--steps", 4_000_000, "--checkpoint.every", 100]
    args += ["--sweep.optim.lr", 0.1, 0.2]
    process = cli.start_train(*args)
    done = processes.signal_when(lambda: any(run.glob("checkpoints/*")), process, signal.SIGINT)
    assert done.code == 130 and "to go on, run: python train.py" in done.stderr and "Traceback" not in done.stderr
    assert not (cli.base / "run-optim.lr=0.2").exists()
    assert train_command.run([str(cli.config), *map(str, args), "--dry-run"]) == 0
    assert capsys.readouterr().out == f"2 runs:\n  {run} (begun)\n  {cli.base}/run-optim.lr=0.2\n"
