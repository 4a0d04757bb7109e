"""Orbax, and nothing of it on the user's terminal: what fails in it reaches its callers as exceptions."""

import functools
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Orbax leaves such coroutines behind where a checkpoint cannot be loaded; they warn whenever they are collected.
warnings.filterwarnings("ignore", message="coroutine .*_background_load. was never awaited", category=RuntimeWarning)


@functools.cache
def api() -> Any:
    """Orbax's API, imported when it is first needed.

    All that fails in it reaches us as an exception, so what it logs is dropped: a save that failed may have threads
    that fail and log after it. Each of its calls has an event loop of its own. Where a read has failed, other reads may
    end after that loop is closed, or never: TensorStore's thread then has a result that nobody waits for, and what
    waits is collected some time, and fails. Either would print a traceback.
    """
    from orbax.checkpoint import v1 as ocp

    def is_orbax(source: str) -> bool:
        return "orbax" in Path(source).parts

    logging.getLogger("absl").addFilter(lambda record: not is_orbax(record.pathname))
    others = sys.unraisablehook

    def all_but_left_behind(unraisable: Any) -> None:
        error = unraisable.exc_value
        late = isinstance(error, RuntimeError) and str(error) == "Event loop is closed" and unraisable.object is None
        frames = traceback.walk_tb(unraisable.exc_traceback)
        if not late and not any(is_orbax(frame.f_code.co_filename) for frame, _ in frames):
            others(unraisable)

    sys.unraisablehook = all_but_left_behind
    return ocp


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what Python and asyncio say about a broken checkpoint off the user's terminal."""
    with quiet_asyncio(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def quiet_asyncio() -> Iterator[None]:
    """Keep what asyncio says of tasks that were given up off it."""
    logger = logging.getLogger("asyncio")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
