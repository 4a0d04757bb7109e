"""The mesh of devices, and how arrays lie on it: one table of rules from logical axes to mesh axes."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxlm.config.mesh import MeshConfig
from jaxlm.errors import UserError

Axes = Mapping[str, tuple[str | None, ...]]
"""The logical axes of each dimension of each parameter, by the parameter's path; None: a dimension never split."""

RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "kv": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "layers": (),
    "head": (),
    "length": (),
}
"""Mesh axes along which the dimensions of a logical axis are split; none: every device has all of them."""

WHOLE_HEADS = ("heads", "kv")
"""Logical axes that are never replicated instead: a head is computed by one device."""

DATA_PARALLEL = MeshConfig()
"""All devices along the mesh axis data."""


def make_mesh(config: MeshConfig = DATA_PARALLEL, absent: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices as a mesh of data x fsdp x tensor, with axis types Auto.

    A size of -1 is what the other two leave. `absent` gives devices that are only compiled for. GPUs lie in the order
    of their hosts, so that the last axes stay within one where they fit; TPUs so that each axis has whole axes of their
    slice, where its size allows it. Raises UserError, with the nearest mesh of all devices, where the sizes have
    another product than there are devices.
    """
    devices, sizes = jax.device_count() if absent is None else len(absent), config.sizes
    fixed = math.prod(size for size in sizes.values() if size != -1)
    shape = {name: devices // fixed if size == -1 else size for name, size in sizes.items()}
    if math.prod(shape.values()) != devices:
        wanted = " x ".join(f"{name} {size}" for name, size in sizes.items())
        advice = " ".join(f"--mesh.{name} {size}" for name, size in _nearest(shape, devices).items())
        raise UserError(
            f"mesh.data, mesh.fsdp and mesh.tensor want a product of {devices}, the number of devices, got {wanted}; "
            f"take {advice}"
        )
    types = (AxisType.Auto,) * len(shape)
    # jax.make_mesh places them alike, but refuses GPUs of several hosts, and axes by which a TPU's would be split.
    placed = create_device_mesh(
        tuple(shape.values()), jax.devices() if absent is None else absent, allow_split_physical_axes=True
    )
    return Mesh(placed, tuple(shape), axis_types=types)


def mesh_of(tree: Any) -> Mesh | None:
    """The mesh on which a tree of arrays lies; None for arrays of the host, or of a device without a mesh."""
    lies = (getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(tree))
    return next((at.mesh for at in lies if isinstance(at, NamedSharding) and isinstance(at.mesh, Mesh)), None)


def rows_multiple(mesh: Mesh) -> int:
    """The devices along which a batch's rows are split: the number of rows must be a multiple of it."""
    return math.prod(mesh.shape[name] for name in RULES["batch"])


def check_batch(batch_size: int, mesh: Mesh, parts: int = 1) -> None:
    """Raise UserError unless the devices divide each of the batch's equal parts (micro-batches)."""
    devices = rows_multiple(mesh)
    if batch_size % (devices * parts):
        each = f" x {parts} micro-batches (optim.accumulate)" if parts > 1 else ""
        raise UserError(
            f"batch_size wants a multiple of the {devices} devices{each}, got {batch_size}; "
            f"take {-(-batch_size // (devices * parts)) * devices * parts}"
        )


def spec_of(mesh: Mesh, shape: tuple[int, ...], axes: tuple[str | None, ...]) -> PartitionSpec:
    """How an array with these logical axes lies on the mesh, by RULES.

    Each mesh axis splits one dimension at most, the first that has it. A dimension that the devices do not divide is
    replicated, except heads. Raises UserError, naming mesh.tensor, where that does not divide the heads, and ValueError
    for a logical axis that is not in RULES or another number of axes than dimensions.
    """
    if len(axes) != len(shape):
        raise ValueError(f"the axes {axes} want an array of {len(axes)} dimensions, got shape {shape}")
    entries: list[str | tuple[str, ...] | None] = []
    taken: set[str] = set()
    for size, axis in zip(shape, axes, strict=True):
        if axis is not None and axis not in RULES:
            raise ValueError(f"axes want names out of {', '.join(RULES)}, or None, got {axis!r}")
        names = tuple(name for name in RULES[axis] if mesh.shape[name] > 1 and name not in taken) if axis else ()
        devices = math.prod(mesh.shape[name] for name in names)
        if size % devices and axis in WHOLE_HEADS:
            fitting = ", ".join(str(n) for n in range(1, size + 1) if size % n == 0)
            raise UserError(f"mesh.tensor wants a divisor of the model's {size} {axis}, got {devices}; take {fitting}")
        if not names or size % devices:
            entries.append(None)
            continue
        taken.update(names)
        entries.append(names[0] if len(names) == 1 else names)
    return PartitionSpec(*entries)


def state_sharding(mesh: Mesh, state: Any, axes: Axes) -> Any:
    """A sharding for each leaf of a training state, or of a tree of parameters.

    `axes` are the model's. The parameters are `state.params`, or the whole tree where there is no such field. They lie
    by their logical axes (see `spec_of`: a dimension that the devices do not divide is replicated). Optimiser moments
    follow by structure: a leaf whose path ends in a parameter's path, and that has its shape, lies as the parameter
    does. All other leaves, and parameters without axes, are replicated.
    """
    params = getattr(state, "params", state)
    lies: dict[str, tuple[tuple[int, ...], PartitionSpec]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = _name(path)
        if name in axes:
            lies[name] = leaf.shape, spec_of(mesh, leaf.shape, axes[name])

    def lay(path: Any, leaf: Any) -> NamedSharding:
        for end in _ends(_name(path)):
            if end in lies:
                shape, spec = lies[end]
                return NamedSharding(mesh, spec if leaf.shape == shape else PartitionSpec())
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(lay, state)


def bytes_of_a_device(mesh: Mesh, state: Any, axes: Axes) -> int:
    """Bytes that a device holds of a tree of arrays, or of their shapes, which lie as `state_sharding` says."""
    lies = state_sharding(mesh, state, axes)
    parts = jax.tree.map(lambda x, at: math.prod(at.shard_shape(x.shape)) * x.dtype.itemsize, state, lies)
    return sum(jax.tree.leaves(parts))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device has all of an array."""
    return NamedSharding(mesh, PartitionSpec())


def abstract_rows(mesh: Mesh, tree: Any, axis: int) -> Any:
    """Shapes and types with a sharding that splits the given axis of each, a batch's rows, as `split_rows` does."""
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, RULES["batch"]))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def split_rows(mesh: Mesh, tree: Any, axis: int) -> Any:
    """Lay the given axis of every array, a batch's rows, along the mesh axes data and fsdp. To be called inside jit."""
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, RULES["batch"]))
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, sharding), tree)


@functools.cache
def row_sharder(mesh: Mesh) -> Callable[[Any, int], Any]:
    """`split_rows` of a mesh, the same object at each call, so that programs compiled with it are shared."""
    return functools.partial(split_rows, mesh)


def must_block(mesh: Mesh) -> bool:
    """True if each call must end before the next begins: several CPU devices deadlock on queued collectives."""
    return mesh.size > 1 and mesh.devices.flat[0].platform == "cpu"


def _nearest(shape: Mapping[str, int], devices: int) -> dict[str, int]:
    """The mesh of all devices whose sizes differ least from those wanted, by the sum of |log ratio|."""

    def distance(sizes: Iterable[int]) -> float:
        return sum(abs(math.log(max(want, 1) / got)) for want, got in zip(shape.values(), sizes, strict=True))

    nearest: tuple[int, ...] = min(_products(devices, len(shape)), key=distance)
    return dict(zip(shape, nearest, strict=True))


def _products(devices: int, count: int) -> Iterator[tuple[int, ...]]:
    """All so many sizes whose product is the number of devices."""
    if count == 1:
        yield (devices,)
        return
    for size in range(devices, 0, -1):
        if devices % size == 0:
            yield from ((size, *rest) for rest in _products(devices // size, count - 1))


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _ends(name: str) -> Iterator[str]:
    """A path without its first 0, 1, 2, ... steps."""
    while name:
        yield name
        name = name.partition("/")[2]
