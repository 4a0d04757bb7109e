"""Every form of a transformer's blocks: against plain NumPy, in decoding, in bfloat16, as a loop, with less saved."""

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.devices.mesh import RULES
from jaxlm.errors import UserError
from jaxlm.models.layers import Kind, repetition, run
from jaxlm.ops.target import Target, compiling_for
from tests.models.numpy_transformer import gpt_logits

V, T = 9, 8
SIZES: dict[str, Any] = {"vocab_size": V, "context": T, "n_layers": 3, "n_heads": 4, "d_model": 16}
LLAMA: dict[str, Any] = {"norm": "rms", "positions": "rotary", "activation": "swiglu", "bias": False}
MODERN: dict[str, Any] = {
    "norm": "rms",
    "positions": "rotary",
    "activation": "relu2",
    "bias": False,
    "qk_norm": True,
    "embed_norm": True,
    "zero_init": True,
    "residual_scalars": True,
    "value_embeds": True,
    "logit_softcap": 15.0,
}
LLAMA3 = jaxlm.RopeConfig(scaling="llama3", factor=8.0, original_context=20, low=0.5, high=2.0)
YARN = jaxlm.RopeConfig(scaling="yarn", factor=4.0, original_context=40, beta_fast=4.0, beta_slow=0.5)
FORMS: dict[str, dict[str, Any]] = {
    "gpt2": {"tied": True},
    "plain": {"bias": False, "positions": "none", "activation": "relu2", "d_ff": 12, "zero_init": True},
    "llama": {**LLAMA, "n_kv_heads": 2, "rope_base": 100.0},
    "qwen2": {**LLAMA, "qkv_bias": True, "d_head": 6, "norm_eps": 0.01, "tied": True},
    "wide": {"d_head": 8, "norm_eps": 0.1, "qk_norm": True, "embed_norm": True},
    "linear": {**LLAMA, "rope": jaxlm.RopeConfig(scaling="linear", factor=4.0)},
    "llama3": {**LLAMA, "d_head": 12, "rope_base": 50.0, "rope": LLAMA3},
    "yarn": {**LLAMA, "d_head": 12, "rope_base": 50.0, "rope": YARN},
    "capped": {"qk_norm": True, "attention_softcap": 0.5, "logit_softcap": 2.0, "window_pattern": "SL", "window": 3},
    "modern": {**MODERN, "n_kv_heads": 1, "window_pattern": "SSL", "documents": True},
}
forms = pytest.mark.parametrize("name", FORMS)


@functools.cache
def model_and_params(name: str) -> tuple[Any, Any]:
    """A model with parameters of which none is 0 or 1 any more."""
    model = jaxlm.GptConfig(**SIZES, **FORMS[name]).build()
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    rng = np.random.default_rng(1)
    return model, {key: leaf + 0.3 * rng.standard_normal(leaf.shape).astype(np.float32) for key, leaf in params.items()}


def tokens() -> jax.Array:
    tok_BT = np.random.default_rng(3).integers(1, V, (2, T))
    tok_BT[0, 3] = tok_BT[1, 5] = 0  # EOS
    return jnp.asarray(tok_BT, jnp.int32)


@functools.cache
def logits(name: str) -> jax.Array:
    model, params = model_and_params(name)
    return jax.jit(model.apply)(params, tokens())


@forms
def test_a_form_is_its_equations(name):
    _, params = model_and_params(name)
    for tok_T, logits_TV in zip(np.asarray(tokens()), logits(name), strict=True):
        np.testing.assert_allclose(logits_TV, gpt_logits(SIZES | FORMS[name], params, tok_T), atol=2e-4, rtol=1e-4)


@forms
def test_decoding_with_the_cache_is_full_decoding(name):
    """In two calls, with rows of unequal length; tokens that were taken back leave no trace."""
    model, params = model_and_params(name)
    extend, tok_BT = jax.jit(model.extend), tokens()
    cache = model.init_cache(params, 2, T)
    _, cache = extend(params, cache, tok_BT[:, ::-1][:, :4], jnp.array([4, 2]))
    first_BTV, cache = extend(params, {**cache, "position": jnp.zeros(2, jnp.int32)}, tok_BT[:, :4], jnp.array([4, 2]))
    np.testing.assert_allclose(first_BTV[0], logits(name)[0, :4], atol=1e-4)
    np.testing.assert_allclose(first_BTV[1, :2], logits(name)[1, :2], atol=1e-4)
    rest_BT = jnp.stack([tok_BT[0, 4:], tok_BT[1, 2:6]])
    next_BTV, cache = extend(params, cache, rest_BT, jnp.array([4, 4]))
    np.testing.assert_allclose(next_BTV[0], logits(name)[0, 4:], atol=1e-4)
    np.testing.assert_allclose(next_BTV[1], logits(name)[1, 2:6], atol=1e-4)
    np.testing.assert_array_equal(cache["position"], [8, 6])


@forms
def test_every_parameter_has_a_logical_axis_for_each_dimension(name):
    model = jaxlm.GptConfig(**SIZES, **FORMS[name]).build()
    params = jax.eval_shape(model.init, jax.random.key(0), tokens())
    assert {key: len(axes) for key, axes in model.axes.items()} == {key: leaf.ndim for key, leaf in params.items()}
    assert {axis for axes in model.axes.values() for axis in axes} <= {*RULES, None}


def test_presets_are_settings():
    assert jaxlm.GptConfig.gpt2() == jaxlm.GptConfig(tied=True)
    assert jaxlm.GptConfig.llama(n_layers=2) == jaxlm.GptConfig(n_layers=2, **LLAMA)
    assert jaxlm.GptConfig.modern(bias=True) == jaxlm.GptConfig(**{**MODERN, "bias": True})


def test_the_modern_form_starts_as_the_uniform_distribution_of_tokens_alone():
    """Blocks that start at 0 add nothing: the logits of a token do not depend on those before it."""
    model = jaxlm.GptConfig.modern(**SIZES).build()
    params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    a_BTV = model.apply(params, tokens())
    np.testing.assert_array_equal(a_BTV[:, 1:], model.apply(params, tokens().at[:, 0].set(1))[:, 1:])
    assert float(jnp.abs(a_BTV).max()) < 1


def test_widths_that_are_not_given():
    assert jaxlm.GptConfig(d_model=24).ff_width == 96
    assert jaxlm.GptConfig(d_model=96, activation="swiglu").ff_width == 256
    assert jaxlm.GptConfig(d_model=100, activation="swiglu").ff_width == 320
    config = jaxlm.GptConfig(context=64, n_layers=6, window_pattern="SSSL")
    assert config.windows == (32, 32, 32, None, 32, None)
    assert dataclasses.replace(config, window=5).windows == (5, 5, 5, None, 5, None)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"n_kv_heads": 3}, "model.n_kv_heads wants a divisor of the 4 heads of queries, got 3"),
        ({"window_pattern": "SX"}, "model.window_pattern wants letters S and L, as SSSL, got 'SX'"),
        ({"window_pattern": ""}, "model.window_pattern wants letters S and L"),
        ({"window": 4}, "model.window 4 has no effect with model.window_pattern L, only with model.window_pattern S"),
        ({"rope_base": 5.0}, "model.rope_base 5.0 has no effect with model.positions learned"),
        ({"positions": "rotary", "d_model": 20}, "heads of an even width for model.positions rotary, got 4 heads"),
        ({"logit_softcap": 0.0}, "model.logit_softcap wants a number > 0, got 0.0"),
    ],
)
def test_settings_that_make_no_model_are_refused(settings, error):
    with pytest.raises(UserError) as caught:
        jaxlm.GptConfig(**settings)
    assert error in str(caught.value)


def test_bfloat16_computes_with_float32_parameters():
    _, params = model_and_params("modern")
    low = jaxlm.GptConfig(**SIZES, **FORMS["modern"], dtype="bfloat16").build()
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(low.init, jax.random.key(0), tokens()), params)
    cache = jax.eval_shape(lambda: low.init_cache(params, 2, T))
    assert (cache["k"].dtype, cache["v"].dtype) == (jnp.bfloat16, jnp.bfloat16)
    logits_BTV, after = jax.eval_shape(low.extend, params, cache, tokens(), jnp.array([T, T]))
    assert logits_BTV.dtype == jnp.float32
    chex.assert_trees_all_equal_shapes_and_dtypes(after, cache)

    def loss(params):
        return jnp.mean(low.sequence_nats(params, tokens(), tokens())[0])

    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(jax.grad(loss), params))} == {jnp.dtype("float32")}
    scale = float(jnp.abs(logits("modern")).max())
    np.testing.assert_allclose(jax.jit(low.apply)(params, tokens()), logits("modern"), atol=0.05 * scale)


def test_kinds_of_layers_in_order_are_as_few_blocks_as_can_be():
    assert repetition("aaaa") == (1, 4)
    assert repetition("aabaab") == (3, 2)
    assert repetition("ababb") == (2, 2)
    assert repetition("abc") == (1, 1)


@pytest.mark.parametrize("order", ["aaaa", "bbb", "ab", "ba", "aabaab", "ababb", "aab", "b"])
@pytest.mark.parametrize("loop", [True, False])
def test_layers_follow_each_other_in_order(order, loop):
    """Layers of kind b have a value; the carry is a number whose digits are the layers and their values."""
    kinds = [Kind(None, letter == "b") for letter in order]
    values = {"value": jnp.arange(order.count("b")) + 5} if "b" in order else {}

    def block(carry, kind, own, value):
        return carry * 100 + own * 10 + (value["value"] if kind.has_value else 0)

    came = run(block, jnp.int32(0), kinds, jnp.arange(len(order)) % 4 + 1, values, loop=loop)
    place = expected = 0
    for i, letter in enumerate(order):
        expected = expected * 100 + (i % 4 + 1) * 10
        if letter == "b":
            expected, place = expected + place + 5, place + 1
    assert int(came) == (expected + 2**31) % 2**32 - 2**31


def test_a_loop_of_layers_gives_the_same_numbers():
    """Five layers of which two pairs are alike, one is left; with their gradients."""
    settings = SIZES | FORMS["modern"] | {"n_layers": 5, "window_pattern": "SL", "d_model": 8}
    results = []
    for scan in (True, False):
        model = jaxlm.GptConfig(**settings, scan=scan).build()
        params = jax.jit(model.init)(jax.random.key(0), tokens())
        params = {name: leaf + 0.1 for name, leaf in params.items()}

        def loss(params, model=model):
            return jnp.mean(model.sequence_nats(params, tokens(), tokens()[:, ::-1])[0])

        value_and_grad = jax.value_and_grad(loss)
        assert ("stablehlo.while" in jax.jit(value_and_grad).lower(params).as_text()) is scan
        results.append(jax.jit(value_and_grad)(params))
    chex.assert_trees_all_close(*results, rtol=1e-4, atol=1e-6)


def saved_bytes(remat: str, scan: bool, n_layers: int = 4, rows: int = 2) -> int:
    """Bytes that the forward pass keeps for the gradient, parameters included."""
    form = LLAMA | {"n_layers": n_layers, "scan": scan, "remat": remat}
    model = jaxlm.GptConfig(**SIZES | form).build()
    tok_BT = jnp.zeros((rows, T), jnp.int32)

    def kept(params):
        return jax.vjp(lambda params: jnp.sum(model.sequence_nats(params, tok_BT, tok_BT)[0]), params)[1]

    params = jax.eval_shape(model.init, jax.random.key(0), tok_BT)
    with compiling_for(Target("cuda")):
        leaves = jax.tree.leaves(jax.eval_shape(kept, params))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


@pytest.mark.parametrize("scan", [True, False])
def test_the_less_is_saved_the_more_is_computed_again(scan):
    """Each policy keeps less than the one before it; of blocks one float32 stream a layer is left."""
    policies = ("none", "activations", "products", "blocks")
    kept = [saved_bytes(remat, scan) for remat in policies]
    assert kept == sorted(kept, reverse=True)
    assert len(set(kept)) == 4
    more_rows = saved_bytes("blocks", scan, rows=3) - kept[-1]
    fewer_layers = saved_bytes("blocks", scan, n_layers=3, rows=3) - saved_bytes("blocks", scan, n_layers=3)
    assert more_rows - fewer_layers == T * SIZES["d_model"] * 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rope": LLAMA3}, r"model\.rope\.scaling llama3 has no effect with model\.positions learned"),
        ({"qkv_bias": True}, r"model\.qkv_bias True has no effect with model\.bias True"),
        ({**LLAMA, "d_head": 5}, r"model\.d_head wants heads of an even width"),
        ({"norm_eps": 0.0}, r"model\.norm_eps wants a number from"),
    ],
)
def test_settings_of_other_families_that_have_no_effect_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        jaxlm.GptConfig(**SIZES, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factor": 2.0}, r"model\.rope\.factor 2\.0 has no effect with model\.rope\.scaling none"),
        ({"scaling": "linear", "low": 2.0}, r"model\.rope\.low 2\.0 has no effect with model\.rope\.scaling linear"),
        ({"scaling": "yarn", "factor": 2.0}, r"model\.rope\.original_context wants the positions of the first"),
        ({"scaling": "llama3", "factor": 2.0, "original_context": 8, "low": 5.0}, r"model\.rope\.high wants"),
    ],
)
def test_settings_of_a_scaling_that_it_does_not_read_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        jaxlm.RopeConfig(**settings)
