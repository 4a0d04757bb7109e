"""Forms of a product that only a CPU computes faster, each with what it earns; never part of a GPU's or TPU's program.

XLA's CPU compiler reads a transposed operand of a small product number by number. The forms here lay the transpose of
a left factor out first; the barriers keep XLA from turning the products round again.

Measured with jax 0.10.2 on two cores, interleaved in one process, as the share of a step by which it would be longer
without the form.
"""

import jax
import jax.numpy as jnp

SHORT_ROWS = 128
"""Positions up to which a causal mean is a product."""

_laid_out = jax.lax.optimization_barrier


def dense_gradients(x_NI: jax.Array, w_IO: jax.Array, dy_NO: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The gradients of y = x W, as dx = (W dy^T)^T and dW = x^T dy."""
    return _laid_out(w_IO @ dy_NO.T).T, _laid_out(x_NI.T) @ dy_NO


def unembed_gradients(h_NF: jax.Array, w_VF: jax.Array, dy_NV: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The gradients of y = h W^T, as dh = dy W and dW = dy^T h."""
    return dy_NV @ w_VF, _laid_out(dy_NV.T) @ h_NF


def causal_mean(x_TBD: jax.Array) -> jax.Array:
    """The mean so far as a product with a triangle of weights 1 / (t + 1), in float32 with full precision."""
    T, B, D = x_TBD.shape
    weight_TT = jnp.tril(jnp.ones((T, T))) / jnp.arange(1, T + 1, dtype=jnp.float32)[:, None]
    mean_TX = jnp.matmul(weight_TT, x_TBD.reshape(T, B * D), precision=jax.lax.Precision.HIGHEST)
    return mean_TX.reshape(T, B, D)
