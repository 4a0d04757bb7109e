"""Faults of one of several real processes before the first step, and shared disks that show files late."""

import shutil
import signal
import time

import pytest

from jaxlm.runs.checksums import CHECKSUMS
from tests.devices.jobs import FAULT, assert_same, errors

pytestmark = pytest.mark.slow


@pytest.fixture
def stopped(place, whole):
    """A copy of the run before its end, whose newest checkpoint has no list of checksums, as a kill leaves it."""
    run = place.base / "before-its-end"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(whole, run)
    (run / "eval.json").unlink()
    newest = max((run / "checkpoints").iterdir(), key=lambda step: int(step.name))
    (newest / CHECKSUMS).unlink()
    return run


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("jaxlm.runs.quiet_orbax.api", 2, "checkpoint 60 of 'RUN' is left as it is, but cannot be loaded by process 1"),
        ("jaxlm.training.loop.resumed", 1, "RuntimeError: planted"),
        ("jaxlm.training.loop.traced", 1, "RuntimeError: planted"),
        ("jaxlm.training.language.set_up", 1, "RuntimeError: planted"),
    ],
    ids=["load", "resume", "step", "data"],
)
def test_a_failure_of_one_process_alone_ends_the_other(place, lines, stopped, fault, code, words):
    began = time.monotonic()
    first, second = place.start(lines, "--run-dir", stopped, planted=(1, "FAILS", fault)).ended()
    assert (first.code, second.code) == (code, code), first.stderr + second.stderr
    assert len(errors(first)) == 1 and words.replace("RUN", str(stopped)) in errors(first)[0], first.stderr
    assert "process 1 (" in errors(first)[0]
    assert not (stopped / "broken").exists()
    assert time.monotonic() - began < 90


def test_a_process_that_sees_the_checkpoints_late_takes_the_one_of_the_first(place, lines, whole):
    run = place.base / "late-disk"
    first, _ = place.start(lines, "--run-dir", run, planted=(1, "PLANTED", f"{int(signal.SIGTERM)} {FAULT}")).ended()
    assert first.code == 143, first.stderr
    first, second = place.start(lines, "--run-dir", run, planted=(1, "BLIND", 1)).ended()
    assert (first.code, second.code) == (0, 0), first.stderr + second.stderr
    assert f"resuming {run} at step " in first.stdout
    assert_same(run, whole)


@pytest.mark.parametrize("exists", [True, False])
def test_a_run_directory_that_each_host_has_for_itself_is_refused(place, lines, stopped, exists):
    folders = [place.base / f"host {number}, {exists}" for number in (0, 1)]
    for folder in folders:
        folder.mkdir()
        if exists:
            shutil.copytree(stopped, folder / "run")
    directories = {"everywhere": {"DIRECTORY": str(folders[0])}, "planted": (1, "DIRECTORY", folders[1])}
    first, second = place.start(lines, "--run-dir", "run", **directories).ended()
    assert (first.code, second.code) == (2, 2), first.stderr + second.stderr
    for done in (first, second):
        assert len(errors(done)) == 1 and "Traceback" not in done.stderr, done.stderr
        assert "run_dir 'run' wants a file system that all hosts share" in errors(done)[0]
        assert "process 1 (" in errors(done)[0]
    hidden = [path.name for path in (folders[0] / "run").iterdir() if path.name.startswith(".")]
    assert hidden == [".lock"]
