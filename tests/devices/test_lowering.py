"""A CPU's forms of products reach no other platform's program: the lowered text of train steps, for each platform."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxlm
from jaxlm.data.rows import Batch
from jaxlm.ops.target import Target, compiling_for
from jaxlm.training.state import TrainState
from jaxlm.training.step import language_loss, make_step

V, ROWS = 27, 32
MODELS = {
    "mlp": jaxlm.MlpConfig(context=3, d_embed=10, d_hidden=200, vocab_size=V),
    "bow": jaxlm.BowConfig(context=16, vocab_size=V),
    "rnn": jaxlm.RnnConfig(cell="rnn", vocab_size=V),
    "gru": jaxlm.RnnConfig(cell="gru", vocab_size=V),
    "lstm": jaxlm.RnnConfig(cell="lstm", vocab_size=V),
    "wavenet": jaxlm.WavenetConfig(vocab_size=V),
    "gpt": jaxlm.GptConfig(context=16, n_layers=1, n_heads=2, d_model=16, vocab_size=V),
}


def lowered(name: str, platform: str) -> str:
    """StableHLO of a model's train step by SGD."""
    model: Any = MODELS[name].build()
    optimizer = optax.sgd(0.1)
    tok = jnp.zeros((ROWS, 16), jnp.int32)
    target = tok
    if name in ("mlp", "wavenet"):
        tok, target = tok[:, : model.context], tok[:, 0]
    params = jax.eval_shape(model.init, jax.random.key(0), tok)
    state = TrainState(step=jnp.int32(0), params=params, opt_state=jax.eval_shape(optimizer.init, params))
    step = jax.jit(make_step(model, language_loss, optimizer)).trace(state, Batch(tok, target, None), jax.random.key(0))
    return step.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", MODELS)
def test_no_barrier_of_a_cpu_reaches_another_platform(name, platform):
    text = lowered(name, platform)
    assert "dot_general" in text
    assert "optimization_barrier" not in text


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_an_mlp_is_trained_by_products_without_transposes_but_on_a_cpu(platform):
    """The CPU's forms transpose 3 times in the hidden layer's gradients, 4 times in the logits and theirs."""
    assert "transpose" not in lowered("mlp", platform)
    on_cpu = lowered("mlp", "cpu")
    assert on_cpu.count("stablehlo.optimization_barrier") == 5
    assert on_cpu.count("stablehlo.transpose") == 7


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_causal_mean_is_a_product_on_a_cpu_alone(platform):
    """One for the mean and one for its gradient."""
    products = {where: lowered("bow", where).count("stablehlo.dot_general") for where in (platform, "cpu")}
    assert products["cpu"] == products[platform] + 2


KERNELS = {Target("cuda", 9.0): "__cudnn$fmhaSoftmaxBackward", Target("tpu"): "tpu_custom_call"}


@pytest.mark.parametrize("on", KERNELS, ids=lambda on: on.platform)
@pytest.mark.parametrize("preset", ["gpt2", "llama", "modern"])
def test_each_preset_lowers_with_the_kernel_of_a_device_that_is_not_there(monkeypatch, preset, on):
    """In bfloat16, as a loop over two layers; JAX looks for cuDNN on this machine when a program is traced."""
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)
    sizes: dict[str, Any] = {"context": 256, "n_layers": 2, "n_heads": 2, "d_model": 128, "vocab_size": V}
    model: Any = getattr(jaxlm.GptConfig, preset)(dtype="bfloat16", scan=True, **sizes).build()
    tok_BT = jnp.zeros((3, 256), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), tok_BT)

    def loss(params: Any) -> jax.Array:
        return language_loss(model, params, Batch(tok_BT, tok_BT, None), None)[0]

    with compiling_for(on):
        text = jax.jit(jax.grad(loss)).trace(params).lower(lowering_platforms=(on.platform,)).as_text()
    assert KERNELS[on] in text
    assert "3x2x256x256x" not in text  # rows, heads, queries, keys
