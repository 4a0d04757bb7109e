"""Arrays of the host on a mesh whose devices may belong to several processes."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlm.devices.mesh import RULES


def place(tree: Any, shardings: Any) -> Any:
    """Lay arrays, which all processes have, by one sharding or by a tree of them.

    Each process gives its own devices what they hold, without comparing the arrays with those of other processes, as
    `jax.device_put` does.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)
    if isinstance(shardings, jax.sharding.Sharding):
        shardings = jax.tree.map(lambda _: shardings, tree)
    return jax.tree.map(_placed, tree, shardings)


def local(tree: Any) -> Any:
    """Whole arrays on this process's first device, for work that one process does alone; all processes call this."""
    return jax.tree.map(_local, tree)


class ProcessRows:
    """The rows of a batch that this process's devices hold, which are those that it reads."""

    def __init__(self, mesh: Mesh):
        self._mesh = mesh

    def own(self, size: int) -> np.ndarray:
        """Their positions in a batch of so many rows, in order, int64."""
        places = self._sharding(0).addressable_devices_indices_map((size,)).values()
        return np.unique(np.concatenate([np.arange(size)[at] for at in places]))

    def place(self, tree: Any, axis: int, size: int) -> Any:
        """Global arrays of `size` rows along an axis, from this process's `own` rows of each."""
        position_N, sharding = self.own(size), self._sharding(axis)

        def global_array(x: np.ndarray) -> jax.Array:
            def part(at: Any) -> np.ndarray:
                here_N = np.searchsorted(position_N, np.arange(size)[at[axis]])
                return np.take(x, here_N, axis)

            return jax.make_array_from_callback((*x.shape[:axis], size, *x.shape[axis + 1 :]), sharding, part)

        return jax.tree.map(global_array, tree)

    def _sharding(self, axis: int) -> NamedSharding:
        return NamedSharding(self._mesh, PartitionSpec(*[None] * axis, RULES["batch"]))


def process_rows(mesh: Mesh) -> ProcessRows | None:
    """How each of several processes reads its rows; None where one process reads all."""
    return ProcessRows(mesh) if jax.process_count() > 1 else None


def _local(x: jax.Array) -> jax.Array:
    if x.is_fully_addressable:
        return x
    if not x.is_fully_replicated:
        assert isinstance(x.sharding, NamedSharding), x.sharding
        everywhere = NamedSharding(x.sharding.mesh, PartitionSpec())
        x = jax.block_until_ready(jax.jit(lambda x: x, out_shardings=everywhere)(x))
    return x.addressable_data(0)


def _placed(x: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return jax.jit(lambda x: x, out_shardings=sharding)(x)
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda at: host[at])
