"""The mesh of devices, and how arrays lie on it."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxlm.errors import UserError

AXES = ("data", "fsdp", "tensor")
"""Mesh axes: copies of the model with their own rows, slices of parameters over copies, slices within a layer."""

PARAMETER_AXES: tuple[tuple[str, PartitionSpec], ...] = ()
"""(end of a parameter's path, how its dimensions lie on AXES); the first that fits decides, none means replicated."""


def make_mesh(config: Any = None) -> Mesh:
    """All devices along the data axis."""
    shape = (jax.device_count(), 1, 1)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def check_batch(batch_size: int, mesh: Mesh) -> None:
    """Raise UserError unless the devices divide the batch."""
    devices = mesh.shape["data"]
    if batch_size % devices:
        raise UserError(
            f"batch_size wants a multiple of the {devices} devices, got {batch_size}; "
            f"take {-(-batch_size // devices) * devices}"
        )


def parameter_spec(path: str) -> PartitionSpec:
    """How the parameter (or optimiser moment) at a path lies on the mesh."""
    return next((spec for end, spec in PARAMETER_AXES if path.endswith(end)), PartitionSpec())


def rows_multiple(mesh: Mesh) -> int:
    return int(mesh.shape["data"])


def state_sharding(mesh: Mesh, tree: Any, axes: Any = None) -> Any:
    """A sharding for each leaf of a tree of parameters or optimiser state."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: NamedSharding(mesh, parameter_spec(jax.tree_util.keystr(path, simple=True, separator="/"))),
        tree,
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device has all of it."""
    return NamedSharding(mesh, PartitionSpec())


def split_rows(mesh: Mesh, tree: Any, axis: int) -> Any:
    """Inside jit: lay the given axis of every array along the data axis."""
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, sharding), tree)


@functools.cache
def row_sharder(mesh: Mesh) -> Callable[[Any, int], Any]:
    """`split_rows` of a mesh, the same object each time, so that programs compiled with it are shared."""
    return functools.partial(split_rows, mesh)


def must_block(mesh: Mesh) -> bool:
    """Whether each call must end before the next begins: several CPU devices deadlock on queued collectives."""
    return mesh.size > 1 and mesh.devices.flat[0].platform == "cpu"
