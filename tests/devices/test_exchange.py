"""What devices exchange in a step of GPT-2 124M, by the text compiled for eight GPUs that are not there."""

import dataclasses
import importlib.metadata
from collections import defaultdict
from typing import Any

import pytest

from configs.gpt2_124m import config as GPT2
from jaxlm import OptimConfig
from jaxlm.config.mesh import MeshConfig
from jaxlm.devices import topology
from jaxlm.devices.mesh import make_mesh
from jaxlm.devices.plan.collectives import collectives
from jaxlm.training.plan import program, traced_step

MIB = 2**20
MUON = OptimConfig("muon", lr=6e-4, clip=1.0)


def exchanged(optimizer: OptimConfig = GPT2.optim, **sizes: int) -> dict[tuple[str, str], float]:
    """MiB of a step, by kind and type."""
    try:
        importlib.metadata.version("jax-cuda13-plugin")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("wants jaxlm[plan-cuda]")
    config = dataclasses.replace(GPT2, optim=optimizer, mesh=MeshConfig(**sizes))
    devices: Any = topology.devices_of(topology.parse_slice("h100x8"))
    with topology.tracing_for("h100"):
        made, rows, length = program(config, make_mesh(config.mesh, devices))
        text = traced_step(made, rows, length).lower().compile().as_text()
    found: dict[tuple[str, str], float] = defaultdict(float)
    for one in collectives(text, 8):
        found[one.kind, one.dtype] += one.bytes / MIB
    return found


@pytest.mark.slow
def test_under_fsdp_weights_are_gathered_and_gradients_scattered_in_bfloat16():
    """The table once, layers forward and backward: 74 + 2 x 162 MiB; gradients once. Norms and positions are few."""
    found = exchanged(data=1, fsdp=8)
    assert 390 < found["all-gather", "bf16"] < 420
    assert 230 < found["reduce-scatter", "bf16"] < 250
    assert sum(size for (_, dtype), size in found.items() if dtype != "bf16") < 5
    assert sum(size for (kind, _), size in found.items() if kind not in ("all-gather", "reduce-scatter")) < 1


@pytest.mark.slow
def test_copies_of_the_model_sum_their_gradients_once_in_bfloat16():
    found = exchanged(data=8)
    assert 230 < found["all-reduce", "bf16"] < 250
    assert sum(found.values()) < 255


@pytest.mark.slow
def test_muon_sends_each_device_whole_matrices_once():
    """Each device's part of 324 MiB of momentum, with zeros to 16 layers, there and back in float32."""
    plain, found = exchanged(data=1, fsdp=8), exchanged(MUON, data=1, fsdp=8)
    assert found["all-to-all", "f32"] == 2 * 324 * 16 / 12 / 8
    assert sum(found.values()) - found["all-to-all", "f32"] == pytest.approx(sum(plain.values()), rel=0.01)
