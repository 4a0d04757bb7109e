"""Handling of SIGINT and SIGTERM, so that training saves its state before it ends."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Context that catches the first SIGINT or SIGTERM and appends it to the list it yields.

    A second signal has its previous effect. Only the main thread can catch signals; elsewhere the list stays empty.
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
