"""Work spread over processes that end with the one that started them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from jaxlm.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def spread(function: Callable[[Item], Result], items: Sequence[Item], processes: int) -> Iterator[tuple[Item, Result]]:
    """Yield each item with the function's result, in the order in which they are done.

    The function and all values must be picklable. One process, or one item, is done in this process. An error ends the
    work of all processes at once and is raised. Raises UserError where a process was killed.
    """
    if processes == 1 or len(items) < 2:
        yield from ((item, function(item)) for item in items)
        return
    context = multiprocessing.get_context("spawn")  # threads of libraries do not survive a fork
    pool = ProcessPoolExecutor(min(processes, len(items)), mp_context=context, initializer=_follow_parent)
    try:
        item_of = {pool.submit(function, item): item for item in items}
        for future in as_completed(item_of):
            yield item_of.pop(future), future.result()
    except BrokenProcessPool:
        raise UserError(
            "a process was killed, perhaps for want of memory: run the same command again to go on, with fewer "
            "--processes"
        ) from None
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    """Leave Ctrl-C to the parent, and end when it ends, however it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
