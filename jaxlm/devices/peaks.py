"""Peak operations, memory and bandwidth of devices by their makers' sheets; of others, a measured matrix product."""

import dataclasses
import functools
import re
import time

import jax
import jax.numpy as jnp
from jax.sharding import Mesh


@dataclasses.dataclass(frozen=True)
class Device:
    """The peaks of one device, as JAX counts devices."""

    kind: str
    """Regular expression of JAX's device_kind."""
    bfloat16: float
    """Operations/s of dense products of bfloat16, summed in float32."""
    float32: float
    """Operations/s of products of float32 as XLA computes them by default: TF32 on GPUs, one bfloat16 pass on TPUs."""
    bandwidth: float
    """Bytes/s of its memory."""
    memory: int
    """Bytes of its memory."""


GIB = 2**30
T = 1e12

DEVICES: dict[str, Device] = {
    "a100": Device(r"NVIDIA A100.*80GB.*", 312 * T, 156 * T, 2.039 * T, 80 * GIB),
    "a100-40gb": Device(r"NVIDIA A100.*40GB.*", 312 * T, 156 * T, 1.555 * T, 40 * GIB),
    "h100": Device(r"NVIDIA H100 80GB HBM3", 989 * T, 494 * T, 3.35 * T, 80 * GIB),
    "h100-pcie": Device(r"NVIDIA H100 PCIe", 756 * T, 378 * T, 2.0 * T, 80 * GIB),
    "h200": Device(r"NVIDIA H200", 989 * T, 494 * T, 4.8 * T, 141 * 10**9),
    "b200": Device(r"NVIDIA B200", 2250 * T, 1125 * T, 8.0 * T, 180 * 10**9),
    "l4": Device(r"NVIDIA L4", 121 * T, 60 * T, 0.3 * T, 24 * 10**9),
    "rtx4090": Device(r"NVIDIA GeForce RTX 4090", 165 * T, 82.6 * T, 1.008 * T, 24 * GIB),
    "rtx3090": Device(r"NVIDIA GeForce RTX 3090", 71 * T, 35.6 * T, 0.936 * T, 24 * GIB),
    "v4": Device(r"TPU v4", 275 * T, 275 * T, 1.228 * T, 32 * GIB),
    "v5e": Device(r"TPU v5 ?(lite|e)", 197 * T, 197 * T, 0.819 * T, 16 * GIB),
    "v5p": Device(r"TPU v5p?", 459 * T, 459 * T, 2.765 * T, 95 * GIB),
    "v6e": Device(r"TPU v6 ?(lite|e)", 918 * T, 918 * T, 1.638 * T, 32 * GIB),
    "v7": Device(r"TPU ?v?7x?", 1153 * T, 1153 * T, 3.69 * T, 96 * GIB),  # a chip has two devices
}
"""Devices by the name that `jaxlm.devices.plan` takes, by data sheets of NVIDIA and Google Cloud."""

WIDTHS = {"cpu": 1024}
"""Width of the matrices of the measured product; WIDEST on other platforms."""
WIDEST = 8192


def of_kind(device_kind: str) -> Device | None:
    """The device with this device_kind; None where it is not in the table."""
    return next((device for device in DEVICES.values() if re.fullmatch(device.kind, device_kind)), None)


def flops_per_second(mesh: Mesh, dtype: str = "float32") -> float:
    """Operations/s of all devices of a mesh in products of this dtype, by the table or else measured.

    Virtual devices of a CPU share its cores and count as one.
    """
    device = mesh.devices.flat[0]
    known = of_kind(device.device_kind)
    if known is not None:
        return mesh.size * float(getattr(known, dtype))
    return _measured(dtype) * (1 if device.platform == "cpu" else mesh.size)


@functools.cache
def _measured(dtype: str) -> float:
    """Operations/s of the default device in a square product, the best of three."""
    width = WIDTHS.get(jax.default_backend(), WIDEST)
    square = jax.jit(lambda x: x @ x)
    x = jnp.ones((width, width), dtype)
    square(x).block_until_ready()
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        square(x).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 2.0 * width**3 / min(seconds)
