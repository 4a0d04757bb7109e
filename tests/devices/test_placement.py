"""Where devices lie on a mesh: hosts side by side, and axes along the links of a slice."""

import jax
import pytest

from jaxlm.config.mesh import MeshConfig
from jaxlm.devices.mesh import make_mesh
from tests.devices.absent import chips, gpus


def groups(mesh, axis):
    """The devices that differ along an axis alone."""
    places = mesh.devices.swapaxes(list(mesh.shape).index(axis), -1)
    return places.reshape(-1, mesh.shape[axis]).tolist()


def test_gpus_of_several_hosts_make_a_mesh_whose_last_axes_stay_within_one(monkeypatch):
    hosts = gpus(4, 8)
    shuffled = hosts[16:] + hosts[:16]  # as processes have come
    monkeypatch.setattr(jax, "devices", lambda: shuffled)
    monkeypatch.setattr(jax, "device_count", lambda: len(shuffled))
    for mesh in (make_mesh(MeshConfig(data=-1, fsdp=8)), make_mesh(MeshConfig(data=4, fsdp=8), shuffled)):
        assert mesh.devices.reshape(-1).tolist() == hosts
        assert all(len({device.coords[0] for device in group}) == 1 for group in groups(mesh, "fsdp"))


@pytest.mark.parametrize(
    ("kind", "sizes", "mesh", "axis"),
    [
        ("TPU v5", (2, 2, 4), MeshConfig(data=2, fsdp=8), "fsdp"),
        ("TPU v5", (2, 2, 4), MeshConfig(data=1, fsdp=4, tensor=4), "tensor"),
        ("TPU v5 lite", (4, 4), MeshConfig(data=4, fsdp=1, tensor=4), "tensor"),
    ],
)
def test_an_axis_of_a_mesh_of_tpus_takes_whole_axes_of_the_slice(kind, sizes, mesh, axis):
    """Along which chips are linked, all the way round where the slice closes to a ring."""
    for group in groups(make_mesh(mesh, chips(kind, *sizes)), axis):
        extents = [len(set(along)) for along in zip(*(device.coords for device in group), strict=True)]
        assert all(size in (1, whole) for size, whole in zip(extents, (*sizes, 1), strict=False)), extents


def test_tpus_whose_axes_must_be_split_make_a_mesh():
    mesh = make_mesh(MeshConfig(data=8, fsdp=2), chips("TPU v6 lite", 4, 4))
    for one, other in groups(mesh, "fsdp"):
        assert sum(abs(a - b) for a, b in zip(one.coords, other.coords, strict=True)) == 1
