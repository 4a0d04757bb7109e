"""The WaveNets against plain NumPy: their equations, written as dilated convolutions over a whole text."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm

V, LAYERS = 7, 3


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def dilated(x_TF, p, level):
    """[x[t - 2 ** level], x[t]] W at each t that has both."""
    step = 2**level
    return np.concatenate([x_TF[:-step], x_TF[step:]], axis=1) @ p[f"pair_{level}"]


def gated(p, tok_T):
    """logits_TV where all inputs are there: van den Oord et al. 2016, equation 2 and figure 4."""
    x_TF, skips = p["embed"][tok_T] @ p["enter"], []
    for level in range(LAYERS):
        filter_TF, gate_TF = np.split(dilated(x_TF, p, level) + p[f"pair_bias_{level}"], 2, axis=1)
        y_TF = np.tanh(filter_TF) * sigmoid(gate_TF)
        skips.append(y_TF @ p[f"skip_{level}"])
        x_TF = x_TF[2**level :] + y_TF @ p[f"residual_{level}"]
    sum_TF = sum(skip_TF[len(skip_TF) - len(x_TF) :] for skip_TF in skips)
    h_TF = np.maximum(sum_TF, 0) @ p["skip_out"] + p["skip_out_bias"]
    return np.maximum(h_TF, 0) @ p["out"] + p["out_bias"]


def fusion(p, tok_T):
    """logits_TV where all inputs are there: the makemore lecture, part 5, with LayerNorm."""
    x_TF = p["embed"][tok_T]
    for level in range(LAYERS):
        u_TF = dilated(x_TF, p, level)
        u_TF = (u_TF - u_TF.mean(1, keepdims=True)) / np.sqrt(u_TF.var(1, keepdims=True) + 1e-5)
        x_TF = np.tanh(u_TF * p[f"norm_scale_{level}"] + p[f"norm_bias_{level}"])
    return x_TF @ p["out"] + p["out_bias"]


@pytest.mark.slow
@pytest.mark.parametrize(("style", "equations"), [("gated", gated), ("fusion", fusion)])
def test_a_wavenet_is_its_equations(style, equations):
    """With parameters of which each, the biases too, matters as much as the others."""
    config: Any = jaxlm.WavenetConfig(layers=LAYERS, d_embed=5, d_hidden=6, style=style, vocab_size=V)
    model, rng = config.build(), np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8), jnp.int32))
    p = {name: 0.6 * rng.standard_normal(leaf.shape) for name, leaf in shapes.items()}
    params = {name: jnp.asarray(value, jnp.float32) for name, value in p.items()}
    tok_T = rng.integers(0, V, 20)
    logits_TV = equations(p, tok_T)
    assert logits_TV.shape == (13, V) and logits_TV.std() > 0.3
    np.testing.assert_allclose(model.apply(params, jnp.asarray(tok_T)[None])[0, 7:], logits_TV, atol=1e-5)
    windows_NC = np.lib.stride_tricks.sliding_window_view(tok_T, 8)
    np.testing.assert_allclose(model.next_logits(params, jnp.asarray(windows_NC)), logits_TV, atol=1e-5)
