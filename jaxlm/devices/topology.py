"""Devices that are not there, for which programs are traced and compiled: NVIDIA's by their facts, TPUs by libtpu."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import jax

from jaxlm.devices import peaks
from jaxlm.errors import UserError
from jaxlm.ops.target import Target, compiling_for

CUDNN = 9, 10, 0
"""The version of cuDNN that programs are compiled for."""


@dataclasses.dataclass(frozen=True)
class Gpu:
    """The facts of an NVIDIA GPU by which XLA compiles for it."""

    capability: tuple[int, int]
    """Compute capability: major and minor."""
    cores: int
    """Streaming multiprocessors."""
    fpus: int
    """Units for float32 in a core."""
    threads: int
    """Threads that a core holds."""
    shared: int
    """KiB of shared memory of a core, one of which is kept from a block."""
    cache: float
    """MiB of its second-level cache."""
    clock: float
    """GHz at most."""


GPUS = {
    "a100": Gpu((8, 0), 108, 64, 2048, 164, 40, 1.41),
    "a100-40gb": Gpu((8, 0), 108, 64, 2048, 164, 40, 1.41),
    "h100": Gpu((9, 0), 132, 128, 2048, 228, 50, 1.98),
    "h100-pcie": Gpu((9, 0), 114, 128, 2048, 228, 50, 1.755),
    "h200": Gpu((9, 0), 132, 128, 2048, 228, 50, 1.98),
    "b200": Gpu((10, 0), 148, 128, 2048, 228, 126.5, 1.965),
    "l4": Gpu((8, 9), 58, 128, 1536, 100, 48, 2.04),
    "rtx4090": Gpu((8, 9), 128, 128, 1536, 100, 72, 2.52),
    "rtx3090": Gpu((8, 6), 82, 128, 1536, 100, 6, 1.695),
}
"""NVIDIA's by the names of peaks.DEVICES; memory and bandwidth stand there."""
TPUS = {"v5e": ("v5e", "1x1"), "v5p": ("v5p", "1x1x1"), "v6e": ("v6e", "1x1"), "v7": ("tpu7x", "1x1x1")}
"""TPUs: the name that libtpu has for each, and the topology of a single chip."""
FLAT = tuple(name for name, (_, single) in TPUS.items() if single.count("x") == 1)
"""TPUs whose chips lie in a plane, linked with four others; those of the others are linked with six, in three axes."""
NAMES = (*GPUS, *TPUS)
HOST_GPUS = 8
"""GPUs in a host where nothing else is said: NVIDIA's HGX and DGX machines have so many."""
COMPILERS = {
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",  # else the plugin wants NVIDIA's driver
    "TPU_SKIP_MDS_QUERY": "1",  # else it asks a server of Google Cloud's which TPU this is
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # else two plans at a time exclude each other by a file, as if for a TPU
}
"""Environment of the compilers on a machine without these devices, read when JAX first looks for devices."""


def platform_of(name: str) -> str:
    """The platform, cuda or tpu, of a device of NAMES."""
    return "cuda" if name in GPUS else "tpu"


class Slice(NamedTuple):
    """Devices of one kind that are linked with each other."""

    name: str
    """One of NAMES."""
    sizes: tuple[int, ...] = ()
    """Hosts and GPUs of each, or the shape of a slice of TPU chips; empty: a single device."""

    def __str__(self) -> str:
        return f"{self.name}:{'x'.join(map(str, self.sizes))}" if self.sizes else self.name


def parse_slice(text: str) -> Slice:
    """The devices that a text names: h100, h100x32, "4x8 h100" (hosts x GPUs), h100:4x8, or v5p:2x2x2.

    Without a number of hosts they have HOST_GPUS each. Raises UserError for any other text.
    """
    if text in NAMES:
        return Slice(text)
    if before := re.fullmatch(r"(\S+) +(\S+)", text):
        shape, name = before.groups()
    elif ":" in text:
        name, _, shape = text.partition(":")
    elif count := re.fullmatch(r"(.+)x(\d+)", text):
        return _of_count(text, count[1], int(count[2]))
    else:
        name, shape = text, ""
    _check_name(name)
    wanted = 2 if name in GPUS else TPUS[name][1].count("x") + 1
    parts = shape.split("x")
    if len(parts) != wanted or not all(part.isdecimal() and int(part) for part in parts):
        raise UserError(f"on wants {wanted} numbers for {name}, as {_example(name)}, got {text!r}")
    return Slice(name, tuple(map(int, parts)))


def _of_count(text: str, name: str, count: int) -> Slice:
    """So many GPUs, in full hosts where one does not hold them."""
    _check_name(name)
    if name in TPUS:
        raise UserError(f"on wants the shape of a slice for {name}, as {_example(name)}, got {text!r}")
    if not count or (count > HOST_GPUS and count % HOST_GPUS):
        raise UserError(f"on wants hosts of {HOST_GPUS} GPUs, or their number, as '3x4 {name}', got {text!r}")
    return Slice(name, (1, count) if count <= HOST_GPUS else (count // HOST_GPUS, HOST_GPUS))


def _check_name(name: str) -> None:
    if name not in NAMES:
        raise UserError(f"on wants one of {', '.join(NAMES)}, or several as h100x8 or v5p:2x2x2, got {name!r}")


def _example(name: str) -> str:
    return f"'4x8 {name}', hosts x GPUs" if name in GPUS else f"{name}:{'2x4' if name in FLAT else '2x2x2'}"


def devices_of(slice: Slice) -> list[Any]:
    """Devices that JAX compiles for and nothing runs on. Their `coords` are (host, GPU, 0), or the chip's in its slice.

    Raises UserError where the compiler is not installed or does not know the topology.
    """
    for setting, value in COMPILERS.items():
        os.environ.setdefault(setting, value)
    from jax.experimental import topologies

    name = slice.name
    try:
        if name in GPUS:
            shape = "x".join(map(str, (*(slice.sizes or (1, 1)), 1)))
            found = topologies.get_topology_desc(platform="cuda", target_config=target_config(name), topology=shape)
        else:
            sizes = slice.sizes or [int(size) for size in TPUS[name][1].split("x")]
            host = [2 if size % 2 == 0 else 1 for size in sizes[:2]] + [1]
            full = f"{TPUS[name][0]}:{'x'.join(map(str, sizes))}"
            found = topologies.get_topology_desc(platform="tpu", topology_name=full, chips_per_host_bounds=host)
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"on {slice} is refused by the compiler for {name}: {str(error).splitlines()[0]}") from error
    except (NotImplementedError, RuntimeError) as error:
        extra = f"jaxlm[plan-{platform_of(name)}]"
        raise UserError(f"on {name} wants the compiler of that device: pip install '{extra}'") from error
    return list(found.devices) if slice.sizes else list(found.devices)[:1]


@contextlib.contextmanager
def tracing_for(name: str) -> Iterator[None]:
    """Context in which programs are traced for devices of a kind, which need not be there.

    Before it traces cuDNN's attention, JAX asks the machine it runs on for its cuDNN and compute capability: here it is
    given those of the device.
    """
    if name not in GPUS:
        with compiling_for(Target("tpu")):
            yield
        return
    from jax._src.cudnn import fused_attention_stablehlo as checks

    major, minor = GPUS[name].capability
    answers: dict[str, Any] = {
        "check_cudnn_version": lambda: 10_000 * CUDNN[0] + 100 * CUDNN[1] + CUDNN[2],
        "check_compute_capability": lambda least: (major, minor) >= tuple(map(int, least.split("."))),
        "is_cuda_compute_capability_equal": lambda one: one == f"{major}.{minor}",
    }
    with mock.patch.multiple(checks, **answers), compiling_for(Target("cuda", float(f"{major}.{minor}"))):
        yield


def target_config(name: str) -> str:
    """XLA's GpuTargetConfigProto of an NVIDIA GPU, as text."""
    gpu, device = GPUS[name], peaks.DEVICES[name]
    major, minor = gpu.capability
    return f"""
gpu_device_info {{
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  core_count: {gpu.cores}  fpus_per_core: {gpu.fpus}  clock_rate_ghz: {gpu.clock}
  threads_per_warp: 32  threads_per_block_limit: 1024  threads_per_core_limit: {gpu.threads}
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
  shared_memory_per_block: 49152  shared_memory_per_block_optin: {1024 * (gpu.shared - 1)}
  shared_memory_per_core: {1024 * gpu.shared}  l2_cache_size: {int(2**20 * gpu.cache)}
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  memory_bandwidth: {int(device.bandwidth)}  device_memory_size: {device.memory}
}}
platform_name: "CUDA"
dnn_version_info {{ major: {CUDNN[0]} minor: {CUDNN[1]} patch: {CUDNN[2]} }}
runtime_version {{ major: 13 minor: 0 patch: 0 }}
device_description_str: "{name}"
"""
