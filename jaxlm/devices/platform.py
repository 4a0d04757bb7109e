"""Which devices are used, how much memory they have, and what numbers depend on beside the settings."""

import contextlib
import os
import resource
import sys
from typing import Any

import jax

from jaxlm.errors import UserError


def choose_device(device: str, gpu_memory: float | None = None) -> None:
    """Select the platform (auto: the best that JAX finds) and the share of GPU memory taken at the start (0: as needed,
    None: JAX's own policy). To be called before JAX is first used. Raises UserError where there is no such device.
    """
    if gpu_memory is not None:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "true" if gpu_memory else "false")
        if gpu_memory:
            os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", str(gpu_memory))
    if device != "auto":
        jax.config.update("jax_platforms", "cuda" if device == "gpu" else device)
        try:
            jax.devices()
        except (RuntimeError, AssertionError) as error:
            raise UserError(
                f"device wants {device}, but JAX finds none: install the extra (jaxlm[cuda], jaxlm[tpu]) or take "
                "--device auto"
            ) from error


def split_cpu(devices: int) -> None:
    """Make the CPU so many devices, if JAX has not been used and XLA_FLAGS does not say how many it is.

    Programs without exchange between devices then keep as many cores busy, which a small step does not do by itself.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # JAX has been used
            jax.config.update("jax_num_cpu_devices", devices)


def describe(gpu_memory: float) -> str:
    """The devices in a line, with the memory policy where there are GPUs."""
    devices = jax.devices()
    kinds = f"{len(devices)} x {devices[0].device_kind}" if len(devices) > 1 else devices[0].device_kind
    line = f"{devices[0].platform} ({kinds})"
    if devices[0].platform == "gpu":
        policy = f"{gpu_memory:.0%} of memory taken at the start" if gpu_memory else "memory as needed"
        line += f", {policy} (--gpu-memory)"
    return line


def numerics() -> dict[str, Any]:
    """The conditions of numbers beside a run's settings. A resumed run equals the uninterrupted one bit for bit
    only while JAX's version, the platform, the kind and number of devices and the switches of arithmetic stay the same.
    """
    switches = ("jax_enable_x64", "jax_threefry_partitionable", "jax_default_matmul_precision")
    values = {name: jax.config.values[name] for name in switches}
    devices = {
        "platform": jax.default_backend(),
        "devices": jax.device_count(),
        "device_kind": jax.devices()[0].device_kind,
    }
    return {"jax": jax.__version__} | devices | values


def memory() -> int | None:
    """Bytes of a device's memory, of a CPU the machine's; None where it is unknown."""
    stats = jax.local_devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    if stats:
        return stats.get("bytes_limit")
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def memory_in_use() -> int | None:
    """The most bytes that a device has held so far, of a CPU this process; None where it is unknown."""
    if jax.default_backend() != "cpu":
        stats = [device.memory_stats() or {} for device in jax.local_devices()]
        return max((one["peak_bytes_in_use"] for one in stats if "peak_bytes_in_use" in one), default=None)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


FLOPS_PER_SECOND = {"cpu": 2e10, "gpu": 2e13, "tpu": 2e13}
"""Operations that small models reach on each platform, cautiously: chunks of steps are sized by it."""


def flops_per_second() -> float:
    """The cautious speed of this process's platform, the same on every machine of the kind."""
    return FLOPS_PER_SECOND.get(jax.default_backend(), FLOPS_PER_SECOND["cpu"])


def bytes_in_words(count: float) -> str:
    """A number of bytes as people read it."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
