"""Threads beside the training are nice, and the training's own are not."""

import os
import subprocess
import sys
import threading

import pytest

from jaxlm.training.background import NICE, TASKS, background_thread


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="threads cannot be nice")
def test_a_background_thread_is_nice_and_the_others_are_not():
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with background_thread("test") as thread:
        nice = thread.submit(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())).result()
    assert nice == max(before, NICE)
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


COMPILES = """
import os, threading
import jax, jax.numpy as jnp
from jaxlm.background import NICE, TASKS, nice_afterwards

def niceness():
    return {int(task.name): os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in TASKS.iterdir()}

jax.config.update("jax_enable_compilation_cache", False)
jax.devices()
before = niceness()
with nice_afterwards():
    own = threading.Thread(target=threading.Event().wait, daemon=True)
    own.start()
    jax.jit(lambda x: jnp.tanh(x @ x)).lower(jax.ShapeDtypeStruct((8, 8), jnp.float32)).compile()
after = niceness()
normal = after[os.getpid()]
assert {after[thread] for thread in (*before, own.native_id) if thread in after} == {normal}  # some may have ended
assert max(NICE, normal) in {nice for thread, nice in after.items() if thread not in before}
"""


@pytest.mark.skipif(not TASKS.is_dir(), reason="threads cannot be told")
def test_the_threads_in_which_xla_compiles_are_nice_after_its_first_compilation():
    subprocess.run([sys.executable, "-c", COMPILES], check=True, timeout=100)
