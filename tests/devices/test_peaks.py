"""The table of devices: which kind is which, and what counts where a kind is not in it."""

import jax
import numpy as np
import pytest

from jaxlm.devices import peaks
from jaxlm.devices.mesh import make_mesh


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100 80GB PCIe", "a100"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("TPU7x", "v7"),
        ("NVIDIA L40S", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA H100 NVL", None),
        ("TPU v3", None),
        ("cpu", None),
    ],
)
def test_a_kind_is_found_by_its_whole_name(kind, name):
    assert peaks.of_kind(kind) is (peaks.DEVICES[name] if name else None)


def test_a_mesh_of_known_devices_has_the_peak_of_each(monkeypatch):
    class FakeMesh:
        size, devices = 4, np.array([type("Gpu", (), {"device_kind": "NVIDIA H100 80GB HBM3", "platform": "gpu"})])

    mesh: object = FakeMesh()
    assert peaks.flops_per_second(mesh, "bfloat16") == 4 * 989e12  # type: ignore[arg-type]
    assert peaks.flops_per_second(mesh, "float32") == 4 * 494e12  # type: ignore[arg-type]


def test_a_cpu_is_measured_once(monkeypatch):
    peaks._measured.cache_clear()
    monkeypatch.setitem(peaks.WIDTHS, "cpu", 64)
    rate = peaks.flops_per_second(make_mesh())
    assert rate > 0 and rate == peaks.flops_per_second(make_mesh())
    peaks._measured.cache_clear()
    assert jax.default_backend() != "cpu" or peaks.of_kind(jax.devices()[0].device_kind) is None
