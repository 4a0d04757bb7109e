"""Programs for devices that are not there: lowered by JAX alone, compiled where those devices' compilers are there."""

import dataclasses
import importlib.metadata
import os
import re
from pathlib import Path

import jax
import pytest

import jaxlm
from jaxlm.cli.plan import lines
from jaxlm.cli.train_command import load_config
from jaxlm.config.models import ModelConfig
from jaxlm.devices import links, peaks, topology
from jaxlm.devices.mesh import make_mesh
from jaxlm.errors import UserError
from jaxlm.training.plan import plan, program, traced_decode, traced_step
from tests.conftest import REPOSITORY

TINY = jaxlm.RunConfig(
    model=jaxlm.GptConfig(n_layers=1, n_heads=2, d_model=16, vocab_size=64, context=32),
    data=jaxlm.DataConfig(kind="stream", example="sequence", max_length=32),
    optim=jaxlm.OptimConfig("adamw", lr=1e-3),
    steps=10,
    batch_size=8,
)
PRESETS = sorted(p for name in ("names_gpt", "gpt2_*", "llama_*") for p in (REPOSITORY / "configs").glob(f"{name}.py"))
os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # before any test has JAX look for devices
HAS = {"cuda": "jax-cuda13-plugin", "tpu": "libtpu"}


def installed(on: str) -> bool:
    try:
        importlib.metadata.version(HAS[topology.platform_of(on)])
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def with_vocabulary(config: jaxlm.RunConfig) -> jaxlm.RunConfig:
    model: ModelConfig = dataclasses.replace(config.model, vocab_size=config.model.vocab_size or 512)
    return dataclasses.replace(config, model=model)


@pytest.mark.parametrize("on", ["h100", "v5e"])
@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_gpt_config_lowers_for_devices_that_are_not_there(path: Path, on: str):
    config, platform = with_vocabulary(load_config(path)), topology.platform_of(on)
    with topology.tracing_for(on):
        made, rows, length = program(config, make_mesh())
        for traced in (traced_step(made, rows, length), traced_decode(made, 1, length)):
            text = traced.lower(lowering_platforms=(platform,)).as_text()
            assert "dot_general" in text or "custom_call" in text


@pytest.mark.parametrize("on", ["h100", "v5e"])
def test_a_plan_compiles_where_the_compiler_is_installed(on):
    if not installed(on):
        pytest.skip(f"wants jaxlm[plan-{topology.platform_of(on)}]")
    made = plan(TINY, on)
    assert not isinstance(made.step, str) and not isinstance(made.decode, str)
    assert made.parameters == sum(
        x.size
        for x in jax.tree.leaves(
            jax.eval_shape(TINY.model.build().init, jax.random.key(0), jax.numpy.zeros((1, 1), int))
        )
    )
    assert made.state >= 12 * made.parameters and made.step.arguments >= made.state
    assert made.step.outputs < made.state  # donated
    assert made.flops == made.step.flops
    assert any(line.endswith(": fits") for line in lines(made, on))


@pytest.mark.slow
@pytest.mark.parametrize("on", ["h100x8", "v5e:2x4"])
def test_a_plan_for_eight_has_their_state_in_slices_and_what_they_exchange(on):
    name = topology.parse_slice(on).name
    if not installed(name):
        pytest.skip(f"wants jaxlm[plan-{topology.platform_of(name)}]")
    sliced = plan(dataclasses.replace(TINY, mesh=jaxlm.MeshConfig(fsdp=8)), on)
    copied = plan(TINY, on)
    assert (sliced.devices, sliced.mesh, copied.mesh["data"]) == (8, {"data": 1, "fsdp": 8, "tensor": 1}, 8)
    assert not isinstance(sliced.step, str) and not isinstance(copied.step, str)
    assert sliced.step.arguments < copied.step.arguments / 3
    kinds = {one.kind for one in copied.step.exchanges}
    assert kinds == {"all-reduce"}
    assert "all-gather" in {one.kind for one in sliced.step.exchanges}
    gradients = sum(one.bytes for one in copied.step.exchanges)
    assert 4 * copied.parameters <= gradients < 4.5 * copied.parameters
    assert copied.step.at_peak(copied.device, 8, "float32").links > 0
    assert copied.decode.exchanges == ()  # type: ignore[union-attr]


@pytest.mark.parametrize("on", ["h100", "v5e"])
def test_a_compiler_that_is_not_installed_is_a_line(on):
    if installed(on):
        pytest.skip("is installed")
    extra = re.escape(f"pip install 'jaxlm[plan-{topology.platform_of(on)}]'")
    with pytest.raises(UserError, match=f"^on {on} wants the compiler of that device: {extra}$"):
        plan(TINY, on)


def test_cudnn_is_traced_as_on_the_device_and_not_beyond():
    """JAX refuses heads wider than 128 on Ampere, and without a GPU takes no wider ones than that."""

    def attention(x):
        return jax.nn.dot_product_attention(x, x, x, is_causal=True, implementation="cudnn")

    x = jax.ShapeDtypeStruct((1, 64, 1, 256), jax.numpy.bfloat16)
    with topology.tracing_for("h100"):
        assert "fmha" in jax.jit(lambda x: attention(x)).trace(x).lower(lowering_platforms=("cuda",)).as_text()
    with topology.tracing_for("a100"), pytest.raises(NotImplementedError, match="<= 128"):
        jax.eval_shape(lambda x: attention(x), x)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model": jaxlm.GptConfig()},
            r"^model.vocab_size wants a number for a plan, which reads no data, got None; give",
        ),
        (
            {"model": jaxlm.CountsConfig(), "steps": None},
            r"^model wants a language model that is trained by plain steps, ",
        ),
        ({"batch_size": "full"}, r"^batch_size wants a number for a plan, which reads no data, got full"),
    ],
)
def test_settings_that_cannot_be_planned_are_a_line(config, message):
    with pytest.raises(UserError, match=message):
        program(dataclasses.replace(TINY, **config), make_mesh())


def test_devices_that_are_planned_have_peaks_and_links():
    assert set(topology.NAMES) <= set(peaks.DEVICES)
    assert set(topology.NAMES) == set(links.LINKS)
    assert "core_count: 132" in topology.target_config("h200")
    assert f"memory_bandwidth: {int(4.8e12)}" in topology.target_config("h200")
