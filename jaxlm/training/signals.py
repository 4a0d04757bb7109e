"""Signals that end a training, caught so that the state is saved first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """A list that the first SIGINT or SIGTERM lands in; a second one does what it did before. Only the main thread
    can catch signals; in another the list stays empty.
    """
    caught: list[int] = []
    before: dict[int, Any] = {}

    def remember(signum: int, frame: Any) -> None:
        caught.append(signum)
        signal.signal(signum, before[signum])

    if threading.current_thread() is threading.main_thread():
        for signum in (signal.SIGINT, signal.SIGTERM):
            before[signum] = signal.signal(signum, remember)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
