"""Pure array mathematics: arrays in, arrays out, no Flax."""

from jaxlm.ops.attention import causal_attention
from jaxlm.ops.linear import affine, causal_mean, dense, project_lookup, unembed
from jaxlm.ops.norms import along_last, inverse_norms, layer_norm, log_normalize, rms_norm, shift_logits, unit
from jaxlm.ops.positions import sinusoids
from jaxlm.ops.random import alias_draw, dropout
from jaxlm.ops.windows import context_index, windows

__all__ = [
    "affine",
    "alias_draw",
    "along_last",
    "causal_attention",
    "causal_mean",
    "context_index",
    "dense",
    "dropout",
    "inverse_norms",
    "layer_norm",
    "log_normalize",
    "project_lookup",
    "rms_norm",
    "shift_logits",
    "sinusoids",
    "unembed",
    "unit",
    "windows",
]
