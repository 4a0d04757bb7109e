"""How the arrays inside a program lie on several devices. On one device every function here returns what it is given.

XLA would find a layout of its own, but not a good one: it splits the stream by its width in place of gathering weights,
gathers in float32 what products take in bfloat16, and gathers again for each iteration of Muon.
"""

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlm.devices.mesh import spec_of

T = TypeVar("T")

_traced_for: ContextVar[Mesh | None] = ContextVar("mesh", default=None)


def on_mesh(mesh: Mesh, function: Callable[..., T]) -> Callable[..., T]:
    """The function, to be given to jit, traced for a mesh: what it calls of this module lays arrays on the mesh.

    Give jit another function for each mesh, as this one returns: what it has traced it does not trace again.
    """

    @functools.wraps(function)
    def traced(*args: Any, **options: Any) -> T:
        token = _traced_for.set(mesh if mesh.size > 1 else None)
        try:
            return function(*args, **options)
        finally:
            _traced_for.reset(token)

    return traced


def traced_for() -> Mesh | None:
    """The mesh of `on_mesh` if it has several devices, else None."""
    return _traced_for.get()


def lay(x: jax.Array, *axes: str | None) -> jax.Array:
    """An array with these logical axes, laid on the mesh by devices.mesh.RULES."""
    mesh = traced_for()
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec_of(mesh, x.shape, axes)))


def by_rows(x_BTD: jax.Array) -> jax.Array:
    """An array of a batch's rows, laid on the mesh by them alone: every other dimension is whole on each device."""
    return lay(x_BTD, "batch", *[None] * (x_BTD.ndim - 1))


def by_heads(attend: Callable[..., jax.Array], *heads: jax.Array) -> jax.Array:
    """attend(*heads), computed by each device for its own rows and heads, as a kernel needs that is no XLA program.

    `heads` are (B, T, heads, H) or, without heads, (B, T).
    """
    mesh = traced_for()
    if mesh is None:
        return attend(*heads)
    specs = [spec_of(mesh, x.shape, ("batch", "length", "heads", "head")[: x.ndim]) for x in heads]
    return jax.shard_map(attend, mesh=mesh, in_specs=tuple(specs), out_specs=specs[0], check_vma=False)(*heads)


def summed_by_copies(sums: Callable[[Any, Any, jax.Array | None], T], whole: Any, rows: Any) -> T:
    """sums(whole, rows, copy): sums over a batch's rows, which the copies of a model exchange once, at the end.

    On a mesh of data alone each device computes those of its own rows as if there were no other, `copy` being its
    number, and all add them up in their own type. With fsdp or tensor no device has a whole copy: the function is then
    called for all rows, with `copy` None as on one device, and exchanges as often as its own parts do. `sums` must
    treat each row alone.
    """
    mesh = traced_for()
    if mesh is None or mesh.shape["data"] < mesh.size:
        return sums(whole, rows, None)

    def of_device(whole: Any, rows: Any) -> T:
        token = _traced_for.set(None)
        try:
            return _summed(sums(whole, rows, jax.lax.axis_index("data")), mesh)
        finally:
            _traced_for.reset(token)

    specs = PartitionSpec(), PartitionSpec("data")
    return jax.shard_map(of_device, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False)(whole, rows)


def are_copies_on_cpus() -> bool:
    """True for a mesh of CPUs along data alone, which `summed_by_copies` makes faster without micro-batches too."""
    mesh = traced_for()
    return mesh is not None and mesh.shape["data"] == mesh.size and _is_cpu(mesh)


def _summed(tree: T, mesh: Mesh) -> T:
    """Each array of a tree, summed over the mesh axis data.

    On CPUs they are exchanged as one vector: XLA's all-reduce of many arrays waits for the other devices for each, and
    between processes gloo sends one after another. A step of a GPT of 4 blocks, 128 wide, takes two processes 24 ms so,
    137 array by array; two virtual devices of a process 16 and 23 (benchmarks/processes.py, two busy cores).
    """
    if not _is_cpu(mesh):
        return jax.lax.psum(tree, "data")
    flat_P, unflatten = ravel_pytree(tree)
    return cast(T, unflatten(jax.lax.psum(flat_P, "data")))


def exchanged(tree: T) -> T:
    """Arrays in the types in which devices exchange them: the compiler moves no conversion of types over the barrier.

    Without it, part of the parameters are gathered in float32 and converted afterwards.
    """
    return tree if traced_for() is None else jax.lax.optimization_barrier(tree)


def rounded(x: jax.Array, dtype: Any) -> jax.Array:
    """An array rounded to the type in which devices exchange it, in its own type; on one device it is not rounded."""
    return x if traced_for() is None else exchanged(x.astype(dtype)).astype(x.dtype)


def over_all(function: Callable[..., jax.Array], x_L: jax.Array, *rest: jax.Array) -> jax.Array:
    """function(x_L, *rest), computed by all devices: each takes whole parts of x along its first axis.

    The function must treat them each alone. Where the devices do not divide their number, zeros are added. Parts are
    sent to their device once, along one mesh axis after the other: XLA cannot change all axes at once without that each
    device gathers everything.
    """
    mesh = traced_for()
    if mesh is None:
        return function(x_L, *rest)
    L, names = x_L.shape[0], ("fsdp", "tensor", "data")
    free = [PartitionSpec.UNCONSTRAINED] * (x_L.ndim - 1)
    steps = [NamedSharding(mesh, PartitionSpec(names[:count], *free)) for count in (1, 2)]
    whole = NamedSharding(mesh, PartitionSpec(names))
    x_L = jnp.pad(x_L, [(0, -L % mesh.size), *[(0, 0)] * (x_L.ndim - 1)])
    for lies in (*steps, whole):
        x_L = jax.lax.with_sharding_constraint(x_L, lies)
    y_L = function(x_L, *rest)
    for lies in (whole, *reversed(steps)):
        y_L = jax.lax.with_sharding_constraint(y_L, lies)
    return y_L[:L]


def _is_cpu(mesh: Mesh) -> bool:
    return bool(mesh.devices.flat[0].platform == "cpu")
