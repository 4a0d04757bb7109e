"""Contexts of a text: the tokens before each position, and their number among all contexts."""

import jax
import jax.numpy as jnp


def windows(tok_BT: jax.Array, context: int, eos: int = 0) -> jax.Array:
    """The last `context` tokens up to each position: y[b, t] = tok[b, t - context + 1 : t + 1].

    What lies before the row is the token `eos`. Returns win_BTC.
    """
    B, T = tok_BT.shape
    if context == 0:
        return jnp.zeros((B, T, 0), tok_BT.dtype)
    padded = jnp.pad(tok_BT, ((0, 0), (context - 1, 0)), constant_values=eos)
    return jnp.stack([padded[:, c : c + T] for c in range(context)], axis=-1)


def context_index(ctx_NC: jax.Array, vocab_size: int) -> jax.Array:
    """The number of a context among all vocab_size ** C: its tokens read as digits, oldest first. Returns row_N."""
    row_N = jnp.zeros(ctx_NC.shape[0], jnp.int32)
    for c in range(ctx_NC.shape[1]):
        row_N = row_N * vocab_size + ctx_NC[:, c]
    return row_N
