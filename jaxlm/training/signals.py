"""Signals that end a training: caught, so that the state is saved first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Stopped(Exception):
    """A signal ended training; the state is saved at `step`.

    Where what is trained first was stopped, a `restart` of the run itself is still to come.
    """

    def __init__(self, signum: int, step: int, *, restart: bool = False):
        super().__init__(f"stopped by {signal.Signals(signum).name} at step {step}")
        self.signum, self.step, self.restart = signum, step, restart


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """A list that the first SIGINT or SIGTERM lands in; a second one does what it did before. Only the main thread
    can catch signals; in another the list stays empty.
    """
    caught: list[int] = []
    before: dict[int, Any] = {}

    def note(signum: int, frame: Any) -> None:
        caught.append(signum)
        signal.signal(signum, before[signum])

    if threading.current_thread() is threading.main_thread():
        for signum in (signal.SIGINT, signal.SIGTERM):
            before[signum] = signal.signal(signum, note)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
