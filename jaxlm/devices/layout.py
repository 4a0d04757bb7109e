"""How the arrays inside a program lie on several devices. On one device every function here returns what it is given.

The compiler adds the collectives by itself, but not the right ones: it may split the stream by its width in place of
gathering weights, and gather and sum in float32 what products take in bfloat16. What is here says so where it matters.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlm.devices.mesh import spec_of

T = TypeVar("T")

_traced_on: ContextVar[Mesh | None] = ContextVar("mesh", default=None)


@contextlib.contextmanager
def traced_on(mesh: Mesh) -> Iterator[None]:
    """Context in which a program is traced for a mesh; to be entered inside of the function under jit.

    What jit traced outside of it is not traced again: give jit a function of its own for each mesh.
    """
    token = _traced_on.set(mesh if mesh.size > 1 else None)
    try:
        yield
    finally:
        _traced_on.reset(token)


def mesh_of_trace() -> Mesh | None:
    """The mesh of `traced_on` where it has several devices, else None."""
    return _traced_on.get()


def lay(x: jax.Array, *axes: str | None) -> jax.Array:
    """An array with these logical axes, laid on the mesh by devices.mesh.RULES."""
    mesh = mesh_of_trace()
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec_of(mesh, x.shape, axes)))


def exchanged(tree: T) -> T:
    """Arrays that devices exchange as they are here: the compiler moves no conversion of types over the barrier."""
    return tree if mesh_of_trace() is None else jax.lax.optimization_barrier(tree)


def rounded(x: Any, dtype: Any) -> Any:
    """An array rounded to the type in which devices exchange it, in its own type; on one device it is not rounded."""
    return x if mesh_of_trace() is None else exchanged(jnp.asarray(x, dtype)).astype(x.dtype)


def over_all(function: Callable[..., jax.Array], x_L: jax.Array, *rest: jax.Array) -> jax.Array:
    """function(x_L, *rest), where parts along the first axis do not depend on each other, over all devices of the mesh.

    Each device takes as many whole parts as another, zeros where there are too few.
    """
    mesh = mesh_of_trace()
    if mesh is None:
        return function(x_L, *rest)
    L, free = x_L.shape[0], [PartitionSpec.UNCONSTRAINED] * (x_L.ndim - 1)
    names = ("fsdp", "tensor", "data")
    steps = [NamedSharding(mesh, PartitionSpec(names[:count], *free)) for count in (1, 2)]
    parts = NamedSharding(mesh, PartitionSpec(names))
    x_L = jnp.pad(x_L, [(0, -L % mesh.size), *[(0, 0)] * (x_L.ndim - 1)])
    for lies in (*steps, parts):
        x_L = jax.lax.with_sharding_constraint(x_L, lies)
    y_L = function(x_L, *rest)
    for lies in (parts, *reversed(steps)):
        y_L = jax.lax.with_sharding_constraint(y_L, lies)
    return y_L[:L]
