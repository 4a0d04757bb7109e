"""Several real processes on 127.0.0.1: they train as one does, and end together."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import jaxlm
from jaxlm.config import PrepareConfig
from jaxlm.data.prepare import prepare
from tests import processes
from tests.processes import Cli, Done, end

pytestmark = pytest.mark.slow

CONFIG = """\
import os

from jaxlm import *

if "VERSION" in os.environ:
    import jaxlm

    jaxlm.__version__ = os.environ["VERSION"]
if "PLANTED" in os.environ:  # a signal that this process sends itself once it has trained so many steps
    from jaxlm.training.recorder import Recorder

    take, (signum, at) = Recorder.chunk, map(int, os.environ["PLANTED"].split())

    def chunk(self, step, *args, **kwargs):
        take(self, step, *args, **kwargs)
        if step >= at:
            os.kill(os.getpid(), signum)

    Recorder.chunk = chunk

config = RunConfig(
    model=GptConfig(n_layers=1, n_heads=2, d_model=16),
    data=DataConfig(path={text!r}, example="sequence", kind={kind!r}, max_length=12, **{more}),
    optim=OptimConfig(lr=0.01),
    eval=EvalConfig(every=20, log_every=10),
    checkpoint=CheckpointConfig(every=20, keep=2),
    sample=SampleConfig(n=2, max_tokens=8),
    plots=False,
    steps={steps},
    batch_size=8,
)
"""
STEPS, FAULT = 60, 50
"""Steps of a run, and the step after which a process is killed or stopped: two checkpoints are then begun."""
QUICK = 10.0
"""Seconds in which a planted fault is told; a process's start is not counted."""


NOTHING = (0, "NOTHING", "")
"""A variable that nobody reads."""


class Job(NamedTuple):
    """Processes of one job, in order."""

    processes: list["subprocess.Popen[str]"]

    def ended(self) -> list[Done]:
        """What each left."""
        return [end(process) for process in self.processes]


class Place:
    """Where the runs of this module lie, and how their processes are started."""

    def __init__(self, cli: Cli):
        self.cli, self.base = cli, cli.base

    def config(self, name: str, text: Path, kind: str = "lines", steps: int = STEPS, **more: Any) -> Path:
        path = self.base / f"{name}.py"
        path.write_text(CONFIG.format(text=str(text), kind=kind, steps=steps, more=more))
        return path

    def env(self, devices: int) -> dict[str, str]:
        return {"XLA_FLAGS": f"{self.cli.env['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"}

    def start(
        self,
        config: Path,
        *args: Any,
        devices: int = 1,
        each: Any = ((), ()),
        delay: float = 0.0,
        planted: tuple[int, str, Any] = NOTHING,
    ) -> Job:
        """Two processes of train.py; `each` gives further arguments of one, `delay` the seconds before the second.

        `planted` is a process and a variable of its environment, which CONFIG reads.
        """
        port, started = free_port(), []
        for number, more in enumerate(each):
            where = ("--distributed.coordinator", f"127.0.0.1:{port}", "--distributed.processes", len(each))
            command = ("train.py", config, *args, *where, "--distributed.process", number, *more)
            env = self.env(devices)
            if planted[0] == number:
                env[planted[1]] = str(planted[2])
            started.append(self.cli.start(*command, env=env))
            time.sleep(delay)
        return Job(started)

    def alone(self, config: Path, *args: Any, devices: int = 2) -> Done:
        return self.cli.python("train.py", config, *args, env=self.env(devices))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(processes.cli(tmp_path_factory))


@pytest.fixture(scope="module")
def lines(place: Place) -> Path:
    return place.config("lines", place.cli.text)


@pytest.fixture(scope="module")
def whole(place: Place, lines: Path) -> Path:
    """The run of one process with two devices."""
    run = place.base / "whole"
    done = place.alone(lines, "--run-dir", run)
    assert done.code == 0, done.stderr
    return run


def killed(process: int) -> tuple[int, str, str]:
    """A process that is killed after FAULT steps."""
    return process, "PLANTED", f"{int(signal.SIGKILL)} {FAULT}"


def losses(run: Path) -> list[tuple[int, str, float]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["split"], line["loss"]) for line in found]


def assert_same(run: Path, other: Path) -> None:
    """Bit for bit the same losses, results, samples and parameters."""
    assert losses(run) == losses(other)
    results = [json.loads((path / "eval.json").read_text()) for path in (run, other)]
    for split in ("train", "dev", "test"):
        assert results[0][split] == results[1][split]
    assert (run / "samples.txt").read_bytes() == (other / "samples.txt").read_bytes()
    params, wanted = (jaxlm.load_run(path, which="last").params for path in (run, other))
    for name, leaf in wanted["params"].items() if "params" in wanted else wanted.items():
        np.testing.assert_array_equal((params.get("params") or params)[name], leaf)


def errors(done: Done) -> list[str]:
    """The lines of stderr that are ours."""
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize(
    ("steps", "mesh"), [(20, ("--mesh.fsdp", 2)), (20, ("--mesh.tensor", 2))], ids=["fsdp", "tensor"]
)
def test_two_processes_train_as_one_with_the_same_mesh(place, lines, steps, mesh):
    one, two = place.base / f"one{mesh[0]}", place.base / f"two{mesh[0]}"
    settings = ("--steps", steps, "--eval.log-every", 5, *mesh)
    assert place.alone(lines, "--run-dir", one, *settings).code == 0
    first, second = place.start(lines, "--run-dir", two, *settings).ended()
    assert (first.code, second.code) == (0, 0), first.stderr + second.stderr
    assert_same(two, one)


def test_a_killed_process_ends_the_other_and_one_process_goes_on(place, lines, whole):
    """The second process starts late, which changes nothing."""
    run = place.base / "killed"
    first, second = place.start(lines, "--run-dir", run, delay=2.0, planted=killed(1)).ended()
    assert second.code == -signal.SIGKILL and first.code == 1
    assert len(errors(first)) == 1 and re.search(r"process 1 \(\S+\) died", errors(first)[0]), first.stderr
    assert "Traceback" not in first.stderr
    done = place.alone(lines, "--run-dir", run)
    assert done.code == 0 and f"resuming {run} at step " in done.stdout, done.stderr
    assert_same(run, whole)


def test_the_first_process_killed_ends_the_second(place, lines):
    run = place.base / "headless"
    _, second = place.start(lines, "--run-dir", run, planted=killed(0)).ended()
    assert second.code != 0 and re.search(r"error: process 0 \(\S+\) died", second.stderr), second.stderr


def test_a_signal_to_one_process_saves_and_ends_both_and_both_go_on(place, lines, whole):
    run = place.base / "stopped"
    first, second = place.start(
        lines, "--run-dir", run, planted=(1, "PLANTED", f"{int(signal.SIGTERM)} {FAULT}")
    ).ended()
    assert (first.code, second.code) == (143, 143), first.stderr + second.stderr
    assert "saved at step " in first.stderr and "saved at step" not in second.stderr
    assert second.stdout.replace("[Gloo]", "").count("\n") <= 1  # gloo's own line
    first, second = place.start(lines, "--run-dir", run).ended()
    assert (first.code, second.code) == (0, 0), first.stderr + second.stderr
    assert f"resuming {run} at step " in first.stdout and "resuming" not in second.stdout
    assert_same(run, whole)


def test_shards_are_read_by_two_processes_as_by_one(place):
    text = place.base / "document.txt"
    text.write_text("the king and the queen rule the land near the water\n" * 30)
    shards = place.base / "shards"
    prepare([text], shards, PrepareConfig(tokens="characters", held_out=0), 1, log=lambda line: None)
    config = place.config("shards", shards, "stream", steps=10)
    one, two = place.base / "one-shards", place.base / "two-shards"
    settings = ("--eval.log-every", 1)
    assert place.alone(config, "--run-dir", one, *settings, devices=4).code == 0
    first, second = place.start(config, "--run-dir", two, *settings, devices=2).ended()
    assert (first.code, second.code) == (0, 0), first.stderr + second.stderr
    got, want = losses(two), losses(one)
    assert [line[:2] for line in got] == [line[:2] for line in want]
    np.testing.assert_allclose([line[2] for line in got], [line[2] for line in want], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("second", "planted", "words"),
    [
        (("--optim.lr", 0.02), NOTHING, ("optim.lr 0.02, not 0.01",)),
        (("--data.path", "OTHER"), NOTHING, ("data ", "not ")),
        (("--run-dir", "elsewhere"), NOTHING, ("run_dir elsewhere, not ",)),
        (("--dry-run",), NOTHING, ("dry_run true, not false",)),
        ((), (1, "VERSION", "9.9"), ("jaxlm 9.9, not ",)),
        ((), (1, "XLA_FLAGS", "--xla_force_host_platform_device_count=3"), ("devices 3 x cpu, not 1 x cpu",)),
    ],
    ids=["config", "data", "run directory", "dry run", "version", "devices"],
)
def test_a_process_that_differs_is_named(place, lines, second, planted, words):
    other = place.base / "other.txt"
    other.write_text(place.cli.text.read_text() + "abe\n")
    run = place.base / "differs"
    second = tuple(other if value == "OTHER" else value for value in second)
    for done in place.start(lines, "--run-dir", run, each=((), second), planted=planted).ended():
        told = errors(done)
        assert done.code == 2 and len(told) == 1, done.stderr
        assert all(word in told[0] for word in ("process 1 (", *words)), told[0]
        assert "Traceback" not in done.stderr
    assert not run.exists()


def test_a_process_that_never_comes_is_named(place, lines):
    limit = ("--distributed.timeout", 2)
    where = ("--distributed.coordinator", f"127.0.0.1:{free_port()}", "--distributed.processes", 3)
    began = time.monotonic()
    started = [
        place.cli.start("train.py", lines, *limit, *where, "--distributed.process", number, env=place.env(1))
        for number in (0, 1)
    ]
    for done in Job(started).ended():
        assert done.code == 2 and len(errors(done)) == 1, done.stderr
        assert "process 2 of 3 had not come" in errors(done)[0], done.stderr
    assert time.monotonic() - began < QUICK + 2 or os.getloadavg()[0] > 2
