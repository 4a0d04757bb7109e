"""Norms: softmax in logarithms, LayerNorm, rows of length 1."""

import jax
import jax.numpy as jnp


def log_normalize(logits_NV: jax.Array) -> jax.Array:
    """Log-softmax in float32: y[n, v] = z[n, v] - log sum_u exp(z[n, u]).

    A row without any possible token (all -inf) stays all -inf instead of nan.
    """
    shifted_NV, log_total_N1 = shift_logits(logits_NV)
    return shifted_NV - log_total_N1


def shift_logits(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Subtract the largest logit of each row, so that no exp overflows: (shifted, log sum_u exp(shifted)) in float32.

    A row that is all -inf stays so, with a log-sum of 0.
    """
    z = logits.astype(jnp.float32)
    top = jax.lax.stop_gradient(jnp.max(z, axis=-1, keepdims=True))
    possible = ~jnp.isneginf(top)
    shifted = z - jnp.where(possible, top, 0.0)
    total = jnp.sum(jnp.exp(shifted), axis=-1, keepdims=True)
    return shifted, jnp.log(jnp.where(possible, total, 1.0))


def layer_norm(x: jax.Array, scale_D: jax.Array, bias_D: jax.Array | None, eps: float = 1e-5) -> jax.Array:
    """(x - mean) / sqrt(var + eps) * scale + bias over the last axis, in float32 (Ba et al. 2016, equation 4).

    None: no bias.
    """
    x32 = x.astype(jnp.float32)
    mean = jnp.mean(x32, axis=-1, keepdims=True)
    centered = x32 - mean
    var = jnp.mean(jnp.square(centered), axis=-1, keepdims=True)
    y = centered * jax.lax.rsqrt(var + eps) * along_last(scale_D, x)
    return (y if bias_D is None else y + along_last(bias_D, x)).astype(x.dtype)


def rms_norm(x: jax.Array, scale_D: jax.Array | None = None, eps: float = 1e-5) -> jax.Array:
    """RMSNorm, x / sqrt(mean(x ** 2) + eps) * scale over the last axis, in float32 (Zhang and Sennrich 2019).

    None: no scale.
    """
    x32 = x.astype(jnp.float32)
    y = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + eps)
    return (y if scale_D is None else y * along_last(scale_D, x)).astype(x.dtype)


def along_last(value_D: jax.Array, x: jax.Array) -> jax.Array:
    """The vector with as many axes as x, of which it has the last: (1, ..., 1, D)."""
    return jnp.expand_dims(value_D, range(x.ndim - 1))


def inverse_norms(row_VE: jax.Array) -> jax.Array:
    """1 / |row| of each row, and 0 for a row of zeros, in float32. Returns inverse_V (any leading shape)."""
    square = jnp.sum(jnp.square(row_VE.astype(jnp.float32)), axis=-1)
    return jnp.where(square > 0, jax.lax.rsqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def unit(row_VE: jax.Array) -> jax.Array:
    """Each row divided by its length, in row's dtype; a row of zeros stays zero, its cosine with everything being 0."""
    return (row_VE.astype(jnp.float32) * inverse_norms(row_VE)[..., None]).astype(row_VE.dtype)
