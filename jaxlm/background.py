"""Threads for what stands back behind the training."""

import contextlib
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

NICE = 10
"""A nice thread gets a tenth of a core that the training wants too, and all of one that it does not."""


def background_thread(name: str) -> ThreadPoolExecutor:
    """A pool of one thread, nice where threads can be (on Linux); the threads that it begins are as nice."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix=name, initializer=_be_nice)


def _be_nice() -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
