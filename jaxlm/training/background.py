"""Threads for what stands back behind the training."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TASKS = Path("/proc/self/task")
"""Where Linux lists a process's threads."""
NICE = 10
"""A nice thread gets a tenth of a core that the training wants too, and all of one that it does not."""


def background_thread(name: str) -> ThreadPoolExecutor:
    """A pool of one thread, nice where threads can be (on Linux); the threads that it begins are as nice."""
    return ThreadPoolExecutor(
        max_workers=1, thread_name_prefix=name, initializer=lambda: _be_nice(threading.get_native_id())
    )


@contextlib.contextmanager
def nice_afterwards() -> Iterator[None]:
    """Make the threads nice that libraries begin meanwhile and keep. XLA compiles all of a process's programs in those
    that its first compilation begins, and they would take a core from the training that is then under way.
    """
    before = _native_threads()
    yield
    for thread in _native_threads() - before:
        _be_nice(thread)


def _native_threads() -> set[int]:
    """The numbers of this process's threads that are not Python's; none where that cannot be told."""
    tasks = {int(task.name) for task in TASKS.iterdir()} if TASKS.is_dir() else set()
    return tasks - {thread.native_id for thread in threading.enumerate() if thread.native_id is not None}


def _be_nice(thread: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, NICE)
