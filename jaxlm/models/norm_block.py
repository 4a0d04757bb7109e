"""The norms of a transformer, and the functions of one number each: what is computed again for the gradient."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from jaxlm.config.transformer import TransformerConfig
from jaxlm.models.spec import Spec, Specs
from jaxlm.ops import layer_norm, rms_norm
from jaxlm.ops.target import target


def specs(config: TransformerConfig, name: str, layers: tuple[int, ...] = ()) -> Specs:
    """The parameters of the norm of that name: a scale, and a bias of a LayerNorm; `layers` stand before the width."""
    shape, axes = (*layers, config.d_model), ("layers",) * len(layers) + ("embed",)
    made = {f"{name}_scale": Spec(shape, axes, nn.initializers.ones)}
    if config.bias and config.norm == "layer":
        made[f"{name}_bias"] = Spec(shape, axes, nn.initializers.zeros)
    return made


def norm(config: TransformerConfig, name: str, x_BTD: jax.Array, p: dict[str, jax.Array]) -> jax.Array:
    """The normed stream, in its dtype."""
    scale_D = p[f"{name}_scale"]
    function = partial(rms_norm if config.norm == "rms" else layer_norm, eps=config.norm_eps)
    bias = () if config.norm == "rms" else (p.get(f"{name}_bias"),)
    return cheaply(config, function)(x_BTD, scale_D, *bias)


def cheaply(config: TransformerConfig, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, computed again for the gradient instead of saved, where model.remat is activations.

    It takes few operations for the bytes that it saves: a norm and a GELU keep several float32 copies of the stream. A
    CPU saves them nevertheless: it has more memory than it has operations to spare.
    """
    again = config.remat == "activations" and target().platform != "cpu"
    return jax.checkpoint(function, prevent_cse=False) if again else function
