"""Randomness inside a program: dropout, and draws from a table."""

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Elements of x / keep with probability keep = 1 - rate, else 0 (Srivastava et al. 2014, scaled in training).

    A random word decides four elements, a byte each, since drawing it costs a CPU more than all the rest; keep is
    therefore rounded to a 256th, in the scale too.
    """
    kept = round((1 - rate) * 256)
    word = jax.random.bits(key, (-(-x.size // 4),), jnp.uint32)
    byte = jax.lax.bitcast_convert_type(word, jnp.uint8).reshape(-1)[: x.size].reshape(x.shape)
    return jnp.where(byte.astype(jnp.int32) < kept, x * (256 / max(kept, 1)), 0)


def alias_draw(key: jax.Array, keep_V: jax.Array, alias_V: jax.Array, count: int) -> jax.Array:
    """`count` independent draws from the distribution of an alias table (Walker 1977), at a cost that V is not in.

    A row i is drawn uniformly, and stays i with probability keep[i], else it becomes alias[i]. Returns index_M.
    """
    row_key, keep_key = jax.random.split(key)
    row_M = jax.random.randint(row_key, (count,), 0, keep_V.shape[0])
    return jnp.where(jax.random.uniform(keep_key, (count,)) < keep_V[row_M], row_M, alias_V[row_M])
