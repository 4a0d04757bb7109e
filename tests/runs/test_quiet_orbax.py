"""Processes in which Orbax fails, or leaves work behind: nobody sees it."""

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

LATE = """
import asyncio, time
import tensorstore
from jaxlm.runs import quiet_orbax
quiet_orbax.api()
promise, future = tensorstore.Promise.new()
async def read():
    await future
loop = asyncio.new_event_loop()
task = loop.create_task(read())
loop.run_until_complete(asyncio.sleep(0))
task._log_destroy_pending = False
loop.close()
promise.set_result(1)
time.sleep(0.1)
class Falls:
    def __del__(self):
        raise RuntimeError("not so late")
Falls()
"""


def test_a_result_that_comes_when_nobody_waits_is_not_printed():
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert "Event loop is closed" not in done.stderr and "not so late" in done.stderr, done.stderr


FULL = """
import pathlib, resource, sys
import jax
from jaxlm.runs.checkpoints import CheckpointWriter
from jaxlm.errors import UserError
parts = {name: jax.numpy.full(60_000, 1 / 3) * jax.random.uniform(jax.random.key(0), 60_000) for name in "abcd"}
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for attempt in range(10):
    try:
        with CheckpointWriter(pathlib.Path(sys.argv[1]) / str(attempt), keep=1) as writer:
            writer.save(1, {"params": parts, "training": parts}, dev_loss=1.0, metadata={})
    except UserError as error:
        print(error)
"""


LEFT_BEHIND = """
import asyncio, gc, pathlib, sys, time
import jax
from jaxlm.runs import checkpoints
from jaxlm.errors import UserError
from tests.loops import abstract_like
directory = pathlib.Path(sys.argv[1])
parts = {"a": jax.numpy.zeros(3), "b": jax.numpy.zeros((2, 3))}
with checkpoints.CheckpointWriter(directory, keep=1) as writer:
    writer.save(1, {"params": parts, "training": parts}, dev_loss=1.0, metadata={})
one = checkpoints.saved(directory)[0]
wider = abstract_like({"params": parts | {"a": jax.numpy.zeros(4)}})
for attempt in range(30):
    try:
        checkpoints.load(directory, one, wider)
    except UserError as error:
        print(error)
    gc.collect()
time.sleep(0.1)
async def waits():
    try:
        await ours
    finally:
        raise RuntimeError("not of a checkpoint")
ours = asyncio.new_event_loop().create_future()
waits().send(None)
"""


@pytest.mark.slow
def test_reads_that_nobody_waits_for_are_not_printed(tmp_path):
    """One array is refused while another is read, in many ways to overlap."""
    behind = [sys.executable, "-c", LEFT_BEHIND, str(tmp_path)]
    done = subprocess.run(behind, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.count("cannot be loaded") == len(done.stdout.splitlines()) == 30, done.stdout
    assert done.stderr.count("Traceback") == done.stderr.count("not of a checkpoint") == 1, done.stderr


@pytest.mark.slow
def test_saves_that_fail_say_so_in_one_line_each(tmp_path):
    """Several arrays fail, in threads of which some end after the save has."""
    full = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(full, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.count("File too large") == len(done.stdout.splitlines()) == 10, done.stdout
    assert done.stderr == ""
