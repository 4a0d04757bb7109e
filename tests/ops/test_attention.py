"""Attention in all its forms: the plain one against NumPy, the kernels that devices get, and which of them is taken."""

import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.ops import flash
from jaxlm.ops.attention import attention, attention_kind, cached_attention, causal_attention
from jaxlm.ops.target import Target, compiling_for, target

H100, T4, V5E, CPU = Target("cuda", 9.0), Target("cuda", 7.5), Target("tpu"), Target("cpu")


def heads(T: int, N: int, K: int, H: int, S: int | None = None, dtype=np.float32) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    shapes = (2, T, N, H), (2, S or T, K, H), (2, S or T, K, H)
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def in_loops(q, k, v, first_B=(0, 0), window=None, softcap=None, start_BT=None):
    """The equation, a query at a time."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    y = np.zeros(q.shape)
    group = q.shape[2] // k.shape[2]
    for b, t, n in np.ndindex(*q.shape[:3]):
        position = first_B[b] + t
        low = max(0 if window is None else position - window + 1, 0 if start_BT is None else int(start_BT[b, t]))
        scores = k[b, low : position + 1, n // group] @ q[b, t, n] / math.sqrt(q.shape[3])
        if softcap:
            scores = softcap * np.tanh(scores / softcap)
        w = np.exp(scores - scores.max())
        y[b, t, n] = w / w.sum() @ v[b, low : position + 1, n // group]
    return y


START_BT = np.array([[0, 0, 2, 2, 2, 5], [0, 1, 1, 1, 4, 4]])


@pytest.mark.parametrize(
    "masks",
    [{}, {"window": 1}, {"window": 3}, {"softcap": 0.7}, {"start_BT": START_BT}, {"window": 2, "start_BT": START_BT}],
)
@pytest.mark.parametrize(("N", "K"), [(4, 4), (4, 2), (3, 1)])
def test_the_plain_form_is_its_equation(N, K, masks):
    q, k, v = heads(6, N, K, 4)
    given: dict[str, Any] = {name: jnp.asarray(value) if name == "start_BT" else value for name, value in masks.items()}
    np.testing.assert_allclose(attention(q, k, v, **given), in_loops(q, k, v, **masks), atol=1e-5)


@pytest.mark.parametrize("masks", [{}, {"window": 3}, {"start_BT": START_BT}, {"window": 2, "start_BT": START_BT}])
def test_a_cpus_blocks_of_queries_are_the_whole(monkeypatch, masks):
    """Six queries in blocks of two; shorter sequences are not cut."""
    monkeypatch.setattr("jaxlm.ops.cpu.QUERY_BLOCKS", 3)
    monkeypatch.setattr("jaxlm.ops.cpu.LONG_QUERIES", 6)
    q, k, v = heads(6, 4, 2, 4)
    given: dict[str, Any] = {name: jnp.asarray(value) if name == "start_BT" else value for name, value in masks.items()}
    np.testing.assert_allclose(attention(q, k, v, **given), in_loops(q, k, v, **masks), atol=1e-5)
    program = str(jax.make_jaxpr(lambda v: attention(q, k, v, **given))(v))
    assert "concatenate" in program
    monkeypatch.setattr("jaxlm.ops.cpu.LONG_QUERIES", 7)
    assert "concatenate" not in str(jax.make_jaxpr(lambda v: attention(q, k, v, **given))(v))


def test_rows_go_on_from_positions_of_their_own():
    q, k, v = heads(2, 4, 2, 4, S=8)
    y_BTNH, _ = causal_attention(q, k, v, jnp.array([5, 1]), window=4)
    np.testing.assert_allclose(y_BTNH, in_loops(q, k, v, first_B=(5, 1), window=4), atol=1e-5)


def test_dropped_weights_are_not_seen():
    q, k, v = heads(5, 2, 2, 4)
    halved = attention(q, k, v, drop=lambda w_BNTS: w_BNTS / 2)
    np.testing.assert_allclose(2 * halved, attention(q, k, v), atol=1e-6)


@pytest.mark.parametrize(
    ("on", "settings", "kind", "reason"),
    [
        (H100, {}, "cudnn", "NVIDIA"),
        (H100, {"dtype": "float32"}, "plain", "cuDNN wants bfloat16 or float16, got float32"),
        (H100, {"head_width": 12}, "plain", "multiple of 8 up to 256 wide, got 12"),
        (H100, {"head_width": 256}, "cudnn", "NVIDIA"),
        (Target("cuda", 8.0), {"head_width": 256}, "plain", "multiple of 8 up to 128 wide, got 256"),
        (T4, {}, "plain", "compute capability 8.0, got 7.5"),
        (H100, {"documents": True}, "plain", "documents share a row"),
        (H100, {"dropout": True}, "plain", "weights are dropped"),
        (V5E, {"softcap": True}, "plain", "soft-cap"),
        (H100, {"choice": "plain"}, "plain", "model.attention"),
        (V5E, {"documents": True}, "splash", "TPU"),
        (V5E, {"length": 100}, "plain", "wants 128 positions, got 100"),
        (CPU, {}, "plain", "no fused kernel for cpu"),
    ],
)
def test_the_form_that_a_device_takes(on, settings, kind, reason):
    came = attention_kind(**{"length": 1024, "head_width": 64, "dtype": "bfloat16", "on": on} | settings)
    assert came.name == kind
    assert reason in came.reason


def test_a_program_can_be_traced_for_a_device_that_is_not_there():
    assert target().platform == "cpu"
    with compiling_for(H100):
        assert target() == H100
    assert target().platform == "cpu"


@pytest.fixture
def cudnn(monkeypatch):
    """JAX looks for cuDNN on this machine when a program is traced."""
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)


def lowered(on: Target, T: int, N: int, K: int, H: int, **masks) -> str:
    """StableHLO of attention and its gradient."""

    def loss(q, k, v):
        return jnp.sum(attention(q, k, v, **masks).astype(jnp.float32))

    with compiling_for(on):
        traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(*heads(T, N, K, H, dtype=jnp.bfloat16))
        return traced.lower(lowering_platforms=(on.platform,)).as_text()


@pytest.mark.parametrize(("T", "window"), [(64, None), (33, 16)])
def test_on_an_nvidia_gpu_attention_is_cudnns(cudnn, T, window):
    text = lowered(H100, T, 4, 2, 64, window=window)
    assert "__cudnn$fmhaSoftmax" in text
    assert "__cudnn$fmhaSoftmaxBackward" in text
    length = 0 if window is None else window
    assert f"sliding_window_length\\22: {length}" in text or f'sliding_window_length": {length}' in text


@pytest.mark.parametrize("masks", [{}, {"window": 64}, {"start_BT": jnp.zeros((2, 256), jnp.int32)}])
def test_on_a_tpu_attention_is_a_pallas_kernel(masks):
    text = lowered(V5E, 256, 4, 2, 64, **masks)
    assert text.count("tpu_custom_call") >= 2
    assert "4x256x256x" not in text  # the weights of all heads


@pytest.mark.parametrize("masks", [{}, {"window": 40}])
def test_splash_attention_agrees_with_the_plain_form(masks):
    """The kernel is interpreted; a length of 130 is filled up to 256."""
    q, k, v = heads(130, 2, 1, 16)
    y_BTNH = flash.splash(q, k, v, masks.get("window"), interpret=True)
    np.testing.assert_allclose(y_BTNH, causal_attention(q, k, v, **masks)[0], atol=2e-5)


def test_splash_attention_tells_documents_apart():
    q, k, v = heads(128, 2, 2, 16)
    start_BT = jnp.where(jnp.arange(128) >= 50, 50, 0)[None].repeat(2, axis=0)
    y_BTNH = flash.splash(q, k, v, None, start_BT, interpret=True)
    np.testing.assert_allclose(y_BTNH, causal_attention(q, k, v, start_BT=start_BT)[0], atol=2e-5)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_a_cache_with_its_heads_first_gives_the_same(kv_heads):
    q, k, v = heads(2, 4, kv_heads, 6, S=8)
    masks: dict[str, Any] = {"window": 4, "softcap": 2.0}
    y_BTNH = cached_attention(q, k.swapaxes(1, 2), v.swapaxes(1, 2), jnp.array([5, 1]), **masks)
    chex.assert_shape(y_BTNH, (2, 2, 4, 6))
    np.testing.assert_allclose(y_BTNH, in_loops(q, k, v, first_B=(5, 1), **masks), atol=1e-5)
