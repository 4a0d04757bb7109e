"""Batches whose rows bring unequal numbers of tokens: each row's state and its own places in a buffer."""

import jax
import jax.numpy as jnp

FEW_PLACES = 16
"""Places of a buffer up to which one token a row is written by a select.

A scatter writes one row after the other on a CPU: 1,000 rows of 64 numbers take it 125 to 160 us, a select over 4 or 16
places 37 to 39 us, while over 256 places the select takes up to 9 times as long as the scatter (20 rows)."""


def after_length(before_B: jax.Array, each_TB: jax.Array, length_B: jax.Array) -> jax.Array:
    """State of each row after its own tokens: each[length[b] - 1, b], or before[b] where the length is 0.

    Both may have more axes behind those named, which are copied.
    """
    if each_TB.shape[0] == 1:
        last_B = each_TB[0]
    else:
        last_B = each_TB[jnp.maximum(length_B - 1, 0), jnp.arange(length_B.shape[0])]
    return jnp.where(_wide(length_B > 0, last_B.ndim), last_B, before_B)


def places(position_B: jax.Array, length_B: jax.Array, count: int, outside: int) -> jax.Array:
    """Place of each of `count` new tokens: position[b] + t for t < length[b], else `outside`. Returns place_BT."""
    t_1T = jnp.arange(count)[None]
    return jnp.where(t_1T < length_B[:, None], position_B[:, None] + t_1T, outside)


def write_rows(buffer_BS: jax.Array, new_BT: jax.Array, place_BT: jax.Array) -> jax.Array:
    """Copy of the buffer with buffer[b, place[b, t]] = new[b, t]; a place of S or more writes nothing.

    Both may have more axes behind those named. The new values are cast to the buffer's dtype.
    """
    S, new_BT = buffer_BS.shape[1], new_BT.astype(buffer_BS.dtype)
    if place_BT.shape[1] == 1 and S <= FEW_PLACES:
        here_BS = jnp.arange(S)[None] == place_BT
        return jnp.where(_wide(here_BS, buffer_BS.ndim), new_BT, buffer_BS)
    row_B1 = jnp.arange(buffer_BS.shape[0])[:, None]
    return buffer_BS.at[row_B1, place_BT].set(new_BT, mode="drop")


def _wide(x: jax.Array, ndim: int) -> jax.Array:
    """The array with axes of size 1 behind its own."""
    return x.reshape(*x.shape, *(1,) * (ndim - x.ndim))
