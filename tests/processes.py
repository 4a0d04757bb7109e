"""train.py and sample.py as real processes, and what the tests of them share."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import QUICK_COMPILATION

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 240.0
"""After which a process hangs."""

CONFIG = """\
from jaxlm import CheckpointConfig, DataConfig, EvalConfig, MlpConfig, OptimConfig, RunConfig, SampleConfig

config = RunConfig(
    model=MlpConfig(context=2, d_embed=2, d_hidden=4),
    data=DataConfig(path={text!r}),
    optim=OptimConfig(lr=0.1, momentum=0.9),
    eval=EvalConfig(every=2000, log_every=3000),
    checkpoint=CheckpointConfig(every=1000, keep=3),
    sample=SampleConfig(n=5),
    plots=False,
    steps=200,
    batch_size=4,
)
"""
PARAMETERS = 6 * 2 + (2 * 2 * 4 + 4) + (4 * 6 + 6)
"""Of CONFIG's model with the vocabulary of tiny_text()."""


class Done(NamedTuple):
    """What a process left."""

    code: int
    stdout: str
    stderr: str


class Cli:
    """Runs the command line from the repository's root; compiled programs are kept between the processes."""

    def __init__(self, base: Path, cache: Path, flags: str):
        self.base = base
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_", "PYTEST_"))},
            "JAX_PLATFORMS": "cpu",
            "XDG_CACHE_HOME": str(cache),
            "XLA_FLAGS": flags,
        }
        self.cache = cache
        self.text = base / "tiny.txt"
        self.text.write_text(tiny_text())
        self.config = base / "tiny.py"
        self.config.write_text(CONFIG.format(text=str(self.text)))

    def start(self, *args: Any, **options: Any) -> subprocess.Popen[str]:
        """python ARGS, in the background."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        env = self.env | options.pop("env", {})
        return subprocess.Popen([sys.executable, *map(str, args)], cwd=ROOT, env=env, text=True, **options)

    def python(self, *args: Any, stdin: str = "", **options: Any) -> Done:
        """python ARGS, to its end."""
        process = self.start(*args, stdin=subprocess.PIPE, **options)
        return end(process, stdin)

    def train(self, *args: Any, **options: Any) -> Done:
        """train.py with the tiny config, or with the one that the first argument names."""
        return self.python("train.py", *self._with_config(args), **options)

    def start_train(self, *args: Any, **options: Any) -> subprocess.Popen[str]:
        """The same in the background."""
        return self.start("train.py", *self._with_config(args), **options)

    def sample(self, *args: Any, **options: Any) -> Done:
        """sample.py."""
        return self.python("sample.py", *args, **options)

    def trained(self, name: str, *args: Any) -> Path:
        """A new run directory in which a training has ended well."""
        path = self.base / name
        done = self.train("--run-dir", path, *args)
        assert done.code == 0, done.stderr
        return path

    def _with_config(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return args if args and str(args[0]).endswith(".py") else (self.config, *args)


def cli(factory: pytest.TempPathFactory, *, as_users_do: bool = False) -> Cli:
    """A Cli with a directory of its own; its cache is shared by the whole session, xdist's workers included.

    Its programs are compiled quickly, or optimised as users' are, where it is their numbers that are compared.
    """
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    cache = shared / "cache-of-processes"
    cache.mkdir(exist_ok=True)
    return Cli(factory.mktemp("cli"), cache, "" if as_users_do else QUICK_COMPILATION)


def tiny_text() -> str:
    """60 made-up names over five letters."""
    rng = random.Random(0)
    return "".join("".join(rng.choices("abcde", k=rng.randint(2, 6))) + "\n" for _ in range(60))


def end(process: subprocess.Popen[str], stdin: str | None = None) -> Done:
    """Wait for a process; one that hangs is killed and fails the test."""
    try:
        stdout, stderr = process.communicate(stdin, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Done(process.returncode, stdout, stderr)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Return as soon as the condition holds or the process has ended."""
    limit = time.monotonic() + SECONDS
    while not condition() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.002)


def signal_when(
    condition: Callable[[], bool], process: subprocess.Popen[str], signum: int = signal.SIGKILL, delay: float = 0.0
) -> Done:
    """Send a signal so many seconds after a condition holds, and wait for the end."""
    wait_for(condition, process)
    time.sleep(delay)
    process.send_signal(signum)
    return end(process)


def tree(*paths: Path) -> dict[str, tuple[bytes, int] | None]:
    """Every file below the paths with its content and time of change, every directory as None."""
    found = [entry for path in paths for entry in (path, *path.rglob("*"))]
    return {
        str(entry): None if entry.is_dir() else (entry.read_bytes(), entry.stat().st_mtime_ns)
        for entry in found
        if entry.exists()
    }


def refused(done: Done, *words: str) -> str:
    """Assert that a process ended as a user's mistake does: exit code 2, one line. Returns it."""
    lines = done.stderr.splitlines()
    assert done.code == 2, done
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    for word in words:
        assert word in lines[0], lines[0]
    return lines[0]
