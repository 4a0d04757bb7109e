"""The device that programs are traced for, on which the choice of kernels and of a CPU's forms depends."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import NamedTuple

import jax


class Target(NamedTuple):
    """A kind of device."""

    platform: str
    """cpu, cuda, rocm or tpu."""
    capability: float = 0.0
    """Compute capability of a CUDA device, as 9.0."""


_given: ContextVar[Target | None] = ContextVar("target", default=None)


def target() -> Target:
    """The device given by `compiling_for`, else the one that JAX computes on."""
    given = _given.get()
    if given is not None:
        return given
    device = jax.devices()[0]
    if device.platform != "gpu":
        return Target(device.platform)
    if "cuda" not in device.client.platform_version:
        return Target("rocm")
    return Target("cuda", float(device.compute_capability))


@contextlib.contextmanager
def compiling_for(given: Target) -> Iterator[None]:
    """Context in which programs are traced for a device that need not be there.

    What jit traced outside of it is not traced again: give jit a new function.
    """
    token = _given.set(given)
    try:
        yield
    finally:
        _given.reset(token)
