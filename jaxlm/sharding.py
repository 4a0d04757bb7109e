"""Devices: which are used, how arrays lie on them."""

import os
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxlm.errors import UserError

AXES = ("data", "fsdp", "tensor")
"""Mesh axes: copies of the model with their own rows, slices of parameters over copies, slices within a layer."""

PARAMETER_AXES: tuple[tuple[str, PartitionSpec], ...] = ()
"""(end of a parameter's path, how its dimensions lie on AXES); the first that fits decides, none means replicated."""


def choose_device(device: str, gpu_memory: float | None = None) -> None:
    """Settle the platform (auto: the best that JAX finds) and the share of GPU memory taken at the start (0: as needed,
    None: JAX's own policy). To be called before JAX is first used. Raises UserError where there is no such device.
    """
    if gpu_memory is not None:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "true" if gpu_memory else "false")
        if gpu_memory:
            os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", str(gpu_memory))
    if device != "auto":
        jax.config.update("jax_platforms", "cuda" if device == "gpu" else device)
        try:
            jax.devices()
        except (RuntimeError, AssertionError) as error:
            raise UserError(
                f"device wants {device}, but JAX finds none: install the extra (jaxlm[cuda], jaxlm[tpu]) or take "
                "--device auto"
            ) from error


def describe(gpu_memory: float) -> str:
    """The devices in a line, with the memory policy where there are GPUs."""
    devices = jax.devices()
    kinds = f"{len(devices)} x {devices[0].device_kind}" if len(devices) > 1 else devices[0].device_kind
    line = f"{devices[0].platform} ({kinds})"
    if devices[0].platform == "gpu":
        policy = f"{gpu_memory:.0%} of memory taken at the start" if gpu_memory else "memory as needed"
        line += f", {policy} (--gpu-memory)"
    return line


def numerics() -> dict[str, Any]:
    """What numbers depend on beside a run's settings: only while it is the same is a resumed run the uninterrupted one,
    bit for bit.
    """
    switches = ("jax_enable_x64", "jax_threefry_partitionable", "jax_default_matmul_precision")
    values = {name: jax.config.values[name] for name in switches}
    return {"jax": jax.__version__, "platform": jax.default_backend(), "devices": jax.device_count()} | values


def memory() -> int | None:
    """Bytes of a device's memory, of a CPU the machine's; None where that cannot be told."""
    stats = jax.devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    if stats:
        return stats.get("bytes_limit")
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def make_mesh() -> Mesh:
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


def state_sharding(mesh: Mesh, tree: Any) -> Any:
    """A sharding for each leaf of a tree of parameters or optimiser state."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: NamedSharding(mesh, parameter_spec(jax.tree_util.keystr(path, simple=True, separator="/"))),
        tree,
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device has all of it."""
    return NamedSharding(mesh, PartitionSpec())


def split_rows(mesh: Mesh, tree: Any, *, axis: int) -> Any:
    """Inside jit: lay the given axis of every array along the data axis."""
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, sharding), tree)


def must_block(mesh: Mesh) -> bool:
    """Whether each call must end before the next begins: several CPU devices deadlock on queued collectives."""
    return mesh.size > 1 and mesh.devices.flat[0].platform == "cpu"
