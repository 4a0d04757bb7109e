"""The MLP of a block: y = act(n W + b) W' + b', or SwiGLU's (silu(n G) * (n W)) W' (Shazeer 2020, equation 6)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlm.config.transformer import TransformerConfig
from jaxlm.models.attention_block import Layer, into_stream
from jaxlm.models.norm_block import cheaply
from jaxlm.models.spec import Spec, Specs
from jaxlm.ops import affine


def specs(config: TransformerConfig) -> Specs:
    """Parameters that all layers have, stacked along a first axis."""
    L, D, F, zeros = config.n_layers, config.d_model, config.ff_width, nn.initializers.zeros
    made: Specs = {}
    for name in ("gate", "up") if config.activation == "swiglu" else ("up",):
        made[name] = Spec((L, D, F), ("layers", "embed", "mlp"))
        if config.bias:
            made[f"{name}_bias"] = Spec((L, F), ("layers", "mlp"), zeros)
    made["down"] = Spec((L, F, D), ("layers", "mlp", "embed"), into_stream(config))
    if config.bias:
        made["down_bias"] = Spec((L, D), ("layers", "embed"), zeros)
    return made


def mlp(config: TransformerConfig, n_BTD: jax.Array, p: Layer) -> jax.Array:
    """The MLP of a normed stream. Returns y_BTD."""
    up_BTF = affine(n_BTD, p["up"], p.get("up_bias"))
    if config.activation == "swiglu":
        y_BTF = cheaply(config, swiglu)(affine(n_BTD, p["gate"], p.get("gate_bias")), up_BTF)
    else:
        y_BTF = cheaply(config, gelu if config.activation == "gelu" else relu2)(up_BTF)
    return affine(y_BTF, p["down"], p.get("down_bias"))


def gelu(x: jax.Array) -> jax.Array:
    """GELU, x Phi(x) with Phi approximated by tanh (Hendrycks and Gimpel 2016)."""
    return jax.nn.gelu(x, approximate=True)


def relu2(x: jax.Array) -> jax.Array:
    """Squared ReLU, max(x, 0) ** 2 (So et al. 2021)."""
    return jnp.square(jax.nn.relu(x))


def swiglu(gate: jax.Array, up: jax.Array) -> jax.Array:
    """Gate times sigmoid(gate) times up."""
    return jax.nn.silu(gate) * up
