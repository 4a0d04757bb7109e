"""Jobs of two real processes on 127.0.0.1, with planted faults, and what the tests of them share."""

import json
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import jaxlm
from tests.processes import Cli, Done, end

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
if "BLIND" in os.environ:  # this process does not see yet which checkpoints there are
    from jaxlm.runs import checkpoints

    checkpoints.checkpoint_steps = lambda place: []
if "DIRECTORY" in os.environ:  # where the relative paths of this process begin
    os.chdir(os.environ["DIRECTORY"])
if "FAILS" in os.environ:  # a function that raises in this process
    import importlib

    def fails(*args, **kwargs):
        raise RuntimeError("planted")

    module, _, name = os.environ["FAILS"].rpartition(".")
    setattr(importlib.import_module(module), name, fails)

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
        everywhere: Mapping[str, str] | None = None,
    ) -> Job:
        """Two processes of train.py; `each` gives further arguments of one, `delay` the seconds before the second.

        `everywhere` has variables of the environment, which CONFIG reads; `planted` is a process and one of its own.
        """
        port, started = free_port(), []
        for number, more in enumerate(each):
            where = ("--distributed.coordinator", f"127.0.0.1:{port}", "--distributed.processes", len(each))
            command = ("train.py", config, *args, *where, "--distributed.process", number, *more)
            env = self.env(devices) | dict(everywhere or {})
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
