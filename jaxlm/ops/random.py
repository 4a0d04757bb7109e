"""Randomness inside a program: dropout, and draws from a table."""

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Drops each element with probability `rate` and divides the others by 1 - rate (Srivastava et al. 2014).

    y = x m / (1 - rate) with m ~ Bernoulli(1 - rate), so that the mean of y is x; zeros where rate is 1. A rate that is
    a multiple of 1/256 takes 8 random bits an element, any other 16, since drawing them costs a CPU more than all the
    rest. The 16 bits are compared with floor(65536 rate) or, drawn once a call, the number above: each element is
    dropped with probability `rate` exactly.
    """
    dtype = jnp.uint8 if (rate * 256).is_integer() else jnp.uint16
    levels = 2 ** (8 * dtype.dtype.itemsize)
    limit, rest = divmod(rate * levels, 1)
    bits_key, limit_key = jax.random.split(key)
    dropped = jnp.uint32(limit)
    if rest:
        dropped += (jax.random.uniform(limit_key) < rest).astype(jnp.uint32)
    word = jax.random.bits(bits_key, (-(-x.size * dtype.dtype.itemsize // 4),), jnp.uint32)
    bits = jax.lax.bitcast_convert_type(word, dtype).reshape(-1)[: x.size].reshape(x.shape)
    return jnp.where(bits.astype(jnp.uint32) < dropped, 0, x * (1 / (1 - rate) if rate < 1 else 0))


def alias_draw(key: jax.Array, keep_V: jax.Array, alias_V: jax.Array, count: int) -> jax.Array:
    """`count` independent draws from the distribution of an alias table (Walker 1977), at a cost that V is not in.

    A row i is drawn uniformly, and stays i with probability keep[i], else it becomes alias[i]. Returns index_M.
    """
    row_key, keep_key = jax.random.split(key)
    row_M = jax.random.randint(row_key, (count,), 0, keep_V.shape[0])
    return jnp.where(jax.random.uniform(keep_key, (count,)) < keep_V[row_M], row_M, alias_V[row_M])
