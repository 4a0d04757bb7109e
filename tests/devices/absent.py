"""Devices that are not there, by the facts that a mesh is placed by."""

import dataclasses
import itertools


@dataclasses.dataclass(frozen=True)
class Device:
    """A GPU, or a TPU chip with one core."""

    id: int
    coords: tuple[int, ...]
    platform: str = "gpu"
    device_kind: str = "NVIDIA H100"
    slice_index: int = 0
    process_index: int = 0
    core_on_chip: int = 0


def gpus(hosts: int, each: int) -> list[Device]:
    """GPUs of several hosts, each host a slice of its own, as JAX has them."""
    return [Device(each * host + gpu, (host, gpu, 0), slice_index=host) for host in range(hosts) for gpu in range(each)]


def chips(kind: str, *sizes: int) -> list[Device]:
    """The chips of a slice, in libtpu's order: x changes first."""
    places = itertools.product(*map(range, reversed((*sizes, *[1] * (3 - len(sizes))))))
    return [Device(n, place[::-1], "tpu", kind) for n, place in enumerate(places)]
