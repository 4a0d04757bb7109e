"""The attention of a block: parameters, and from a normed stream to queries, keys and values and back."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlm.config.transformer import TransformerConfig
from jaxlm.models.norm_block import cheaply
from jaxlm.models.spec import INIT, Spec, Specs
from jaxlm.ops import affine, rms_norm
from jaxlm.ops.positions import llama3_rates, rotary_rates, rotate, yarn_rates

Layer = dict[str, jax.Array]
"""The parameters of one layer."""

GATE_WIDTH = 32
"""Numbers of the stream, its first ones, that the gate of value embeddings reads, as in nanochat."""


def specs(config: TransformerConfig) -> Specs:
    """Parameters that all layers have, stacked along a first axis."""
    L, D, H, zeros = config.n_layers, config.d_model, config.head_width, nn.initializers.zeros
    made: Specs = {}
    for name in ("q", "k", "v"):
        axis, heads = ("heads", config.n_heads) if name == "q" else ("kv", config.kv_heads)
        made[name] = Spec((L, D, heads, H), ("layers", "embed", axis, "head"))
        if config.bias or config.qkv_bias:
            made[f"{name}_bias"] = Spec((L, heads, H), ("layers", axis, "head"), zeros)
    made["attend"] = Spec((L, config.n_heads, H, D), ("layers", "heads", "head", "embed"), into_stream(config))
    if config.bias:
        made["attend_bias"] = Spec((L, D), ("layers", "embed"), zeros)
    return made


def value_specs(config: TransformerConfig) -> Specs:
    """Parameters of the layers that have value embeddings, stacked along a first axis."""
    gates, width = sum(config.value_layers), min(GATE_WIDTH, config.d_model)
    if not gates:
        return {}
    shape, axes = (gates, width, config.kv_heads), ("layers", None, "kv")
    return {"value_gate": Spec(shape, axes, nn.initializers.zeros)}


def into_stream(config: TransformerConfig) -> nn.initializers.Initializer:
    """The initialiser of a matrix that writes to the stream, which two of each layer do: GPT-2's, or zeros."""
    if config.zero_init:
        return nn.initializers.zeros
    return nn.initializers.normal(INIT / (2 * config.n_layers) ** 0.5)


def queries_keys_values(
    config: TransformerConfig, n_BTD: jax.Array, p: Layer, position_BT: jax.Array, value: Layer | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """q_BTNH, k_BTKH and v_BTKH of a normed stream, at positions of which position_BT may have one row for all.

    With value embeddings, v += g e where e is the token's own and g_BTK = 2 sigmoid(n W) of the first numbers of n.
    """
    q_BTNH, k_BTKH, v_BTKH = split_heads(n_BTD, p)

    def turned(x_BTNH: jax.Array, position_BT: jax.Array) -> jax.Array:
        if config.positions == "rotary":
            x_BTNH = rotate(x_BTNH, position_BT, rates(config), config.rope.amplitude)
        return rms_norm(x_BTNH, eps=config.norm_eps) if config.qk_norm else x_BTNH

    if config.positions == "rotary" or config.qk_norm:
        q_BTNH, k_BTKH = (cheaply(config, turned)(x, position_BT) for x in (q_BTNH, k_BTKH))
    if value is not None:
        gate_GK = value["value_gate"]
        gate_BTK = 2 * jax.nn.sigmoid(affine(n_BTD[..., : gate_GK.shape[0]], gate_GK))
        v_BTKH = v_BTKH + gate_BTK[..., None] * value["value"]
    return q_BTNH, k_BTKH, v_BTKH


def rates(config: TransformerConfig) -> jax.Array:
    """The rate of each pair of a head's numbers by the settings, rate_I in radians a position."""
    rope, rate_I = config.rope, rotary_rates(config.head_width // 2, config.rope_base)
    if rope.scaling == "linear":
        return rate_I / rope.factor
    if rope.original_context is None:
        return rate_I
    if rope.scaling == "llama3":
        return llama3_rates(rate_I, rope.factor, rope.original_context, rope.low, rope.high)
    return yarn_rates(rate_I, config.rope_base, rope.factor, rope.original_context, rope.beta_fast, rope.beta_slow)


def split_heads(x_BTD: jax.Array, p: Layer) -> list[jax.Array]:
    """The queries, keys and values of each head, q_BTNH, k_BTKH and v_BTKH: x W + b with each one's W and b."""
    return [affine(x_BTD, p[name], p.get(f"{name}_bias")) for name in ("q", "k", "v")]


def join_heads(y_BTNH: jax.Array, p: Layer) -> jax.Array:
    """The output of attention: y W + b over all heads at once, W_NHD being `attend`. Returns y_BTD."""
    N, H, D = p["attend"].shape
    w_ID = jnp.reshape(p["attend"], (N * H, D))
    return affine(y_BTNH.reshape(*y_BTNH.shape[:-2], N * H), w_ID, p.get("attend_bias"))
