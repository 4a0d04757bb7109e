"""Several runs of one model side by side: arrays with a leading axis of runs, which lies along the mesh axis data."""

import os
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlm.config import RunConfig
from jaxlm.devices import platform
from jaxlm.errors import UserError

AXIS = "data"
"""The mesh axis along which runs lie."""


def check_runs(count: int, mesh: Mesh) -> None:
    """Raise UserError unless the devices divide the number of runs."""
    if count % mesh.size:
        raise UserError(
            f"seeds wants a multiple of the {mesh.size} devices, along which they lie, got {count}; take "
            f"{-(-count // mesh.size) * mesh.size}"
        )


def leading(mesh: Mesh) -> NamedSharding:
    """The first dimension of an array, that of runs, lies along the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def side_by_side(mesh: Mesh, function: Callable[..., Any], takes: Any, gives: Any) -> Callable[..., Any]:
    """A function of arrays with a leading axis of runs, so that each device computes its own runs alone.

    `takes` (one entry for each argument) and `gives` are prefixes of the trees that the function takes and returns:
    True for arrays with the leading axis, False for those that every device has. To be called inside jit. It is the
    function itself on one device.
    """
    if mesh.size == 1:
        return function

    def spec(tree: Any) -> Any:
        return jax.tree.map(lambda leads: PartitionSpec(AXIS) if leads else PartitionSpec(), tree)

    return jax.shard_map(function, mesh=mesh, in_specs=spec(takes), out_specs=spec(gives), check_vma=False)


def use_cores(config: RunConfig) -> None:
    """Make a CPU's cores devices, as many as divide the seeds and a batch's rows; to be called before JAX is used."""
    rows = config.batch_size if isinstance(config.batch_size, int) and config.batch_tokens is None else 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    platform.split_cpu(max(n for n in range(1, cores + 1) if config.seeds % n == 0 and rows % n == 0))
