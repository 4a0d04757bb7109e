"""Orbax without its output on the terminal; its failures reach callers as exceptions."""

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
    """Import Orbax's API when it is first needed.

    Its failures are raised as exceptions, so its log is dropped: after a failed save other threads may fail and log
    too. Each of its calls has its own event loop. After a failed read, other reads may end once that loop is closed, or
    never: TensorStore's thread then has a result without a receiver, and pending coroutines fail when they are
    collected. Either would print a traceback.
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
    """Context that suppresses warnings and asyncio's log while a broken checkpoint is read."""
    with quiet_asyncio(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def quiet_asyncio() -> Iterator[None]:
    """Context that suppresses asyncio's log of abandoned tasks."""
    logger = logging.getLogger("asyncio")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


LEAST_MEMORY = 2**26
"""Bytes that are written at once where memory is short, or those of the largest array."""


def little_memory(largest: int) -> Any:
    """Context in which a checkpoint is saved with little memory beside its arrays, of which one has so many bytes.

    An import of 475 MiB of weights takes 810 MiB in place of 940 (benchmarks/interop.py): the default keeps a copy, and
    collects all bytes of a file.
    """
    options, largest = api().options, max(largest + 1, LEAST_MEMORY)
    limits = {"write_concurrent_bytes": largest, "transfer_concurrent_bytes": largest}
    return api().Context(
        memory_options=options.MemoryOptions(deepcopy_host_arrays=False, **limits),
        array_options=options.ArrayOptions(saving=options.ArrayOptions.Saving(use_ocdbt=False)),
    )
