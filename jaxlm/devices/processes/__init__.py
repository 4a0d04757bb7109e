"""Several processes that train one run: who is there, what the first decides for all, and how they end together.

A process that is alone is its own first: every function then does the plain thing, and JAX's distributed runtime is not
touched.
"""

import atexit
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any, TypeVar, cast

import jax

from jaxlm.config import ModelConfig, RunConfig
from jaxlm.config.serialization import to_json
from jaxlm.devices.processes import clusters, preflight
from jaxlm.devices.processes.channel import Channel
from jaxlm.errors import NonFiniteLoss, Stopped, UserError, is_refused

T = TypeVar("T")

RUN_LOCAL = ("distributed", "data.path", "device", "gpu_memory")
"""Settings that may differ from process to process; the data itself is compared by its hash."""
HEARTBEAT = 50
"""Seconds without a sign of life after which JAX ends the processes of a job in which one hangs as a whole."""
DEATH_NOTICE = 5.0
"""Seconds after an error of JAX in which the channel may say that another process has died, which caused it."""

_channel: Channel | None = None


def count() -> int:
    """Number of processes."""
    return 1 if _channel is None else _channel.processes


def index() -> int:
    """Number of this process, from 0."""
    return 0 if _channel is None else _channel.process


def is_first() -> bool:
    """True for the process that locks, prints and writes."""
    return _channel is None or _channel.process == 0


@contextlib.contextmanager
def joined(config: RunConfig, **options: bool) -> Iterator[None]:
    """Context of a training: the processes meet, start JAX together, and end together.

    `options` are those of the command, which must be the same too. An error within ends all of them with its exit code
    and a line that names the process. The processes meet once: a further training in the same processes is of the same
    job. Raises UserError where processes are missing or differ.
    """
    if _channel is None:
        _start(config, options)
    if _channel is None:
        yield
        return
    try:
        yield
        share(None)  # the first one has written what is written last
    except Stopped:
        raise
    except BaseException as error:
        _end(_channel, error)
        raise


def share(value: Any) -> Any:
    """The JSON value that the first process gives, on all of them."""
    return value if _channel is None else _channel.share(value)


def from_first(function: Callable[[], T]) -> T:
    """Call a function, which returns a JSON value, in the first process alone; all return its value."""
    return cast(T, share(function() if is_first() else None))


def merged(value: dict[str, T]) -> dict[str, T] | None:
    """All processes' JSON objects as one, in the first process; None in the others."""
    if _channel is None:
        return value
    values = _channel.gather(value)
    return None if values is None else {name: item for one in values for name, item in one.items()}


def all_true(value: bool) -> bool:
    """True, in all processes, if it is true in each."""
    if _channel is None:
        return value
    values = _channel.gather(value)
    return bool(share(values is None or all(values)))


def check_all(value: bool, message: Callable[[str], str]) -> None:
    """Raise UserError in all processes if the value is false in one of them.

    `message` makes the error out of the names of these, as "process 1 (node7), process 2 (node8)".
    """
    if _channel is None:
        if not value:
            raise UserError(message("this process"))
        return
    if (found := _channel.gather(value)) is not None:
        names = [f"process {process} ({_channel.hosts[process]})" for process, good in enumerate(found) if not good]
        if names:
            raise UserError(message(", ".join(preflight.few(names))))
    share(None)


def check_same(facts: preflight.Facts, config: RunConfig) -> None:
    """Raise UserError, in all processes, if facts about their data or devices differ, or one of them has none in time.

    The number and kind of devices are added to the facts.
    """
    if _channel is None:
        return
    facts = {**facts, "devices": f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}"}
    timeout = config.distributed.timeout
    if (found := _channel.gather(facts, timeout)) is not None:
        names = [f"process {process} ({host})" for process, host in enumerate(_channel.hosts)]
        preflight.refuse([], preflight.differences(names, found), processes=count(), timeout=timeout)
    share(None)


def agreed(caught: list[int]) -> Callable[[], bool]:
    """A function that says whether a signal ends the training, with the same answer in all processes.

    `caught` has the signals of this process. Several processes call it at the same places, where they wait for each
    other; the first signal that one of them has caught is then in `caught` of all.
    """
    if _channel is None:
        return lambda: bool(caught)
    channel, ends = _channel, False

    def stops() -> bool:
        nonlocal ends
        if not ends:
            found = channel.gather(caught[:1])
            signals = channel.share(None if found is None else [signum for one in found for signum in one][:1])
            ends = bool(signals)
            caught[:] = signals or caught
        return ends

    return stops


def refuse_several(config: RunConfig, what: str) -> None:
    """Raise UserError, naming `what` wants one process, if the settings or the environment have several."""
    place = clusters.place(config.distributed)
    if place is not None:
        raise UserError(
            f"distributed.processes wants 1 for {what}, got {place.settings.processes}: give --distributed.processes 1"
        )


def _start(config: RunConfig, options: dict[str, bool]) -> None:
    global _channel
    place = clusters.place(config.distributed)
    if place is None:
        return
    if not config.model.trained_by_steps or type(config.model).prepare is not ModelConfig.prepare:
        refuse_several(config, f"a {type(config.model).__name__}, which one process trains")
    settings = place.settings
    channel = preflight.meet(settings, {**_facts(config, settings.processes), **options})
    if config.device != "auto":
        jax.config.update("jax_platforms", "cuda" if config.device == "gpu" else config.device)
    # JAX's own would take SIGTERM from Python, and Orbax asks it at each save, out of step with the training.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            settings.coordinator,
            settings.processes,
            settings.process,
            local_device_ids=place.devices,
            cluster_detection_method="deactivate",
            initialization_timeout=max(int(settings.timeout), 1),
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    except Exception as error:
        channel.fail(f"JAX could not start: {error}", 1)
        raise
    _channel = channel
    atexit.register(channel.leave)  # before JAX's own, which waits for the others


def _facts(config: RunConfig, processes: int | None) -> dict[str, Any]:
    """Versions and settings, which all processes must have in common."""
    versions = {name: metadata.version(name) for name in ("jax", "jaxlib")}
    from jaxlm import __version__

    return {**versions, "jaxlm": __version__, "distributed.processes": processes, **_flat(to_json(config))}


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their whole names, without those of RUN_LOCAL."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if prefix + name in RUN_LOCAL:
            continue
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _end(channel: Channel, error: BaseException) -> None:
    """Tell the other processes why this one ends, so that none waits for it."""
    if is_refused(error):
        reason, code = str(error), 2
    elif isinstance(error, NonFiniteLoss):
        reason, code = str(error), 3
    elif isinstance(error, KeyboardInterrupt):
        reason, code = "stopped by SIGINT", 128 + signal.SIGINT
    elif isinstance(error, SystemExit) and isinstance(error.code, int):
        reason, code = f"ended with exit code {error.code}", error.code
    else:
        time.sleep(DEATH_NOTICE)  # a collective fails as soon as another process dies; the channel then ends this one
        reason, code = f"{type(error).__name__}: {error}", 1
    channel.fail(reason, code)
    atexit.register(_leave, code)


def _leave(code: int) -> None:
    """End the process before JAX waits for the others, which have ended."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)
