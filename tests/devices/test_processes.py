"""Several real processes on 127.0.0.1: they train as one does, and end together."""

import os
import re
import signal
import time

import numpy as np
import pytest

from jaxlm.config import PrepareConfig
from jaxlm.data.prepare import prepare
from tests.devices.jobs import FAULT, NOTHING, QUICK, Job, assert_same, errors, free_port, killed, losses

pytestmark = pytest.mark.slow


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
