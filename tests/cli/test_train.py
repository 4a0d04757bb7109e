import collections
import json
import math
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from jaxlm.cli import process
from jaxlm.cli import train as train_command
from jaxlm.errors import Stopped
from tests import processes
from tests.processes import Cli, refused, tree


@pytest.fixture(scope="module")
def cli(tmp_path_factory) -> Cli:
    return processes.cli(tmp_path_factory)


@pytest.fixture(scope="module")
def trained(cli) -> Path:
    return cli.trained("trained")


@pytest.mark.parametrize("args", [["--help"], ["-h"]])
def test_help_says_how_to_call(cli, args):
    done = cli.python("train.py", *args)
    assert done.code == 0 and done.stderr == ""
    assert "usage: train.py CONFIG" in done.stdout and "configs/names_mlp.py" in done.stdout


def test_help_of_a_config_lists_the_settings(cli):
    done = cli.train("--help")
    assert done.code == 0 and done.stderr == ""
    for setting in ("--optim.lr", "--data.path", "--model.d-hidden", "--run-dir", "--restart", "--dry-run"):
        assert setting in done.stdout


def test_no_arguments_is_a_mistake_with_the_usage(cli):
    done = cli.python("train.py")
    refused(done, "configs/names_mlp.py")
    assert "usage: train.py CONFIG" in done.stdout


@pytest.mark.slow
def test_init_from_starts_at_the_other_runs_parameters(cli, trained, tmp_path):
    done = cli.train("--run-dir", tmp_path / "run", "--init-from", trained, "--steps", 1, "--optim.lr", "1e-12")
    assert done.code == 0, done.stderr
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    ended = json.loads((trained / "eval.json").read_text())["dev"]["nats_per_token"]
    began = json.loads((trained / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    assert (first["step"], first["split"]) == (0, "dev")
    assert first["loss"] == pytest.approx(ended, abs=1e-6)
    assert first["loss"] != pytest.approx(began, abs=1e-3)


def test_a_finished_run_is_not_trained_again(cli, trained):
    before = tree(trained)
    done = cli.train("--run-dir", trained)
    assert done.code == 0 and done.stderr == ""
    assert "trained already" in done.stdout and "--restart" in done.stdout
    assert (trained / "samples.txt").read_text().rstrip("\n") in done.stdout
    assert tree(trained) == before


@pytest.mark.slow
def test_restart_trains_again(cli, trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    done = cli.train("--run-dir", run, "--restart", "--steps", 100)
    assert done.code == 0, done.stderr
    assert json.loads((run / "eval.json").read_text())["step"] == 100
    assert [entry.name for entry in (run / "checkpoints").iterdir()] == ["100"]
    assert {json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()} == {0, 20, 60, 100}
    refused(cli.train("--run-dir", run), "steps: 100, now 200", f"give another --run-dir and --init-from {run}")


@pytest.mark.slow
def test_a_restart_that_fails_leaves_the_old_run_beside_it(cli, trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    before = {entry.relative_to(run): entry.read_bytes() for entry in run.rglob("*") if entry.is_file()}
    done = cli.train("--run-dir", run, "--restart", "--optim.lr", "1e30")
    old = tmp_path / "run.old"
    assert done.code == 3 and "no checkpoint was saved" in done.stderr and f"is renamed to {old}" in done.stdout
    after = {entry.relative_to(old): entry.read_bytes() for entry in old.rglob("*") if entry.is_file()}
    assert after == before


@pytest.mark.slow
def test_progress_is_plain_lines_and_pictures_are_drawn_where_there_is_no_terminal(cli, tmp_path):
    done = cli.train("--run-dir", tmp_path / "run", "--plots")
    assert done.code == 0
    pictures = {path.name for path in (tmp_path / "run" / "plots").glob("*.png")}
    assert pictures == {"bigrams.png", "pairs.png", "loss.png"}
    assert "\r" not in done.stderr and "\x1b" not in done.stderr
    *_, last = done.stderr.splitlines()
    assert last.startswith("step 200/200  loss ") and "dev " in last and "tokens/s" in last and "left" in last
    assert done.stdout.startswith("devices: cpu")


@pytest.mark.parametrize("length", [["--steps", "300"], ["--epochs", "2"]], ids=" ".join)
def test_dry_run_prints_and_writes_nothing(cli, tmp_path, length):
    text = processes.tiny_text()
    done = cli.train("--run-dir", tmp_path / "run", "--dry-run", "--data.split", 1, 0, 0, *length)
    assert done.code == 0 and done.stderr == ""
    assert list(tmp_path.iterdir()) == []
    printed = json.loads(done.stdout[done.stdout.index("{") : done.stdout.rindex("}") + 1])
    steps = 300 if "--steps" in length else math.ceil(2 * len(text) / 4)
    assert printed["steps"] == steps and printed["model"]["d_hidden"] == 4 and printed["data"]["split"] == [1, 0, 0]
    assert f"parameters: {processes.PARAMETERS}\n" in done.stdout
    assert f"data: train {len(text)}," in done.stdout
    assert f"tokens: 4 a step, {4 * steps:,} in {steps:,} steps" in done.stdout
    floats, counters = 2 * processes.PARAMETERS, 2  # parameters and momentum; the step, the schedule's own count
    assert f"memory: {4 * (floats + counters)} B of state" in done.stdout


@pytest.mark.slow
def test_epochs_in_place_of_steps(cli, tmp_path):
    done = cli.train("--run-dir", tmp_path / "run", "--epochs", "0.5", "--data.split", 1, 0, 0)
    assert done.code == 0, done.stderr
    ended = json.loads((tmp_path / "run" / "eval.json").read_text())
    assert ended["step"] == ended["steps"] == math.ceil(0.5 * len(processes.tiny_text()) / 4)
    assert ended["dev"] is None and ended["test"] is None


@pytest.mark.slow
def test_counts_end_to_end(cli, tmp_path):
    args = (
        "configs/names_bigram.py",
        "--data.path",
        cli.text,
        "--data.split",
        1,
        0,
        0,
        "--run-dir",
        tmp_path / "run",
        "--sample.n",
        9,
    )
    done = cli.train(*args)
    assert done.code == 0 and done.stderr == ""
    pairs: collections.Counter[tuple[str, str]] = collections.Counter()
    for line in processes.tiny_text().splitlines():
        pairs.update(zip("." + line, line + ".", strict=True))
    firsts: collections.Counter[str] = collections.Counter()
    for (first, _), count in pairs.items():
        firsts[first] += count
    nats = -sum(n * math.log((n + 1) / (firsts[first] + 6)) for (first, _), n in pairs.items())
    ended = json.loads((tmp_path / "run" / "eval.json").read_text())
    assert ended["train"]["nats_per_token"] == pytest.approx(nats / pairs.total(), abs=1e-5)
    assert ended["train"]["tokens"] == ended["train"]["bytes"] == pairs.total()
    assert (tmp_path / "run" / "plots" / "bigrams.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "run" / "samples.txt").read_text().strip() in done.stdout
    assert "trained already" in cli.train(*args).stdout


@pytest.mark.slow
def test_a_loss_that_is_not_a_number_stops_the_run(cli, tmp_path):
    schedule = ["--optim.schedule", "piecewise", "--optim.boundaries", 1500, "--optim.factors", 3e38]
    args = ["--run-dir", tmp_path / "run", "--steps", 4000, *schedule]
    for _ in ("first", "again, from the checkpoint"):
        done = cli.train(*args)
        assert done.code == 3 and "Traceback" not in done.stderr
        *_, last = done.stderr.splitlines()
        assert last.startswith("error: the loss is ")
        assert any(f"at step {step} of 4000" in last for step in range(1501, 1600)), last
        assert "the last good checkpoint is step 1000" in last
        assert "--optim.lr" in last and "--optim.clip" in last
        assert [entry.name for entry in (tmp_path / "run" / "checkpoints").iterdir()] == ["1000"]
    assert cli.sample(tmp_path / "run", "-n", 3).code == 0


@pytest.mark.slow
def test_a_loss_that_is_never_a_number(cli, tmp_path):
    done = cli.train("--run-dir", tmp_path / "run", "--optim.lr", "1e38")
    assert done.code == 3 and "no checkpoint was saved before" in done.stderr
    assert not (tmp_path / "run" / "eval.json").exists()


def test_control_c_before_the_first_step_is_no_traceback(cli, tmp_path):
    path = tmp_path / "stop.py"
    path.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = cli.train(path, "--run-dir", tmp_path / "run")
    assert done.code == 130 and "Traceback" not in done.stderr


@pytest.mark.parametrize("script", ["train.py", "sample.py"])
def test_control_c_while_the_command_line_is_imported_is_no_traceback(cli, tmp_path, script):
    (tmp_path / "tyro.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = cli.python(script, cli.config, env={"PYTHONPATH": str(tmp_path)})
    assert done.code == 130 and "Traceback" not in done.stderr


def test_the_command_to_go_on_can_be_pasted(monkeypatch, capsys, cli):
    from jaxlm import training

    def stop(*args, **kwargs):
        raise Stopped(signal.SIGTERM, 17)

    monkeypatch.setattr(training, "train", stop)
    code = train_command.run([str(cli.config), "--restart", "--run-dir", "my runs/it's $HOME", "--seed", "1"])
    told = capsys.readouterr().err
    assert code == 143 and "saved at step 17" in told
    command = shlex.split(told.partition("run: ")[2])
    assert command == ["python", "train.py", str(cli.config), "--run-dir", "my runs/it's $HOME", "--seed", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["read by nobody", "closed", "full"])
def test_training_outlives_its_output(cli, tmp_path, closed):
    run = tmp_path / "run"
    if closed == "full":
        with Path("/dev/full").open("w") as full:
            process = cli.start_train("--run-dir", run, stdout=full, stderr=full)
    elif closed == "closed":
        script = 'exec "$@" >&- 2>&-'
        command = [sys.executable, "train.py", str(cli.config), "--run-dir", str(run)]
        process = subprocess.Popen(["sh", "-c", script, "sh", *command], cwd=processes.ROOT, env=cli.env)
    else:
        process = cli.start_train("--run-dir", run)
        process.stdout.close()
        process.stderr.close()
    assert process.wait(processes.SECONDS) == 0
    assert json.loads((run / "eval.json").read_text())["step"] == 200


@pytest.mark.slow
def test_without_a_place_for_compiled_programs_it_trains_without_a_word_of_it(cli, tmp_path):
    done = cli.train("--run-dir", tmp_path / "run", env={"XDG_CACHE_HOME": str(cli.text)})
    assert done.code == 0
    assert [line for line in done.stderr.splitlines() if not line.startswith("step ")] == []


@pytest.mark.slow
def test_what_a_terminal_cannot_show_is_escaped(cli, tmp_path):
    (tmp_path / "text.txt").write_text("zo\u00eb\n")
    done = cli.train(
        "--run-dir", tmp_path / "run", "--data.path", tmp_path / "text.txt", env={"PYTHONIOENCODING": "ascii"}
    )
    assert done.code == 0 and "\\xeb" in done.stdout


def test_a_terminal_is_still_one_for_a_command_that_outlives_it():
    assert process._output(Mock(isatty=lambda: True), ignore_write_errors=True).isatty()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("seconds", [0.3, 0.5, 0.7])
def test_a_signal_while_libraries_are_imported_ends_it_at_once(cli, tmp_path, signum, seconds):
    process = cli.start_train("--run-dir", tmp_path / "run")
    done = processes.signal_when(lambda: True, process, signum, delay=seconds)
    assert done.code in (128 + signum, -signum)  # before the first line of train.py it is the system's
    assert "Traceback" not in done.stderr or done.code == -signum
    assert not (tmp_path / "run" / "eval.json").exists()
