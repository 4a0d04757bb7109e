"""Causal attention."""

import jax
import jax.numpy as jnp


def causal_attention(
    q_BTNH: jax.Array, k_BSNH: jax.Array, v_BSNH: jax.Array, first: jax.Array | int = 0
) -> tuple[jax.Array, jax.Array]:
    """softmax(q k / sqrt(H)) v, where query t, at position first + t, sees the keys up to its own position.

    (Vaswani et al. 2017, equation 1.) `first` may differ from row to row, first_B. Returns y_BTNH and the weights
    before dropout, w_BNTS, both in q's dtype.
    """
    H, T, S = q_BTNH.shape[-1], q_BTNH.shape[1], k_BSNH.shape[1]
    w_BNTS = jnp.einsum("btnh,bsnh->bnts", q_BTNH, k_BSNH, preferred_element_type=jnp.float32) * H**-0.5
    position_BT = jnp.reshape(first, (-1, 1)) + jnp.arange(T)[None]
    sees_BTS = jnp.arange(S)[None, None] <= position_BT[:, :, None]
    w_BNTS = jnp.where(sees_BTS[:, None], w_BNTS, -jnp.inf)
    w_BNTS = jax.nn.softmax(w_BNTS, axis=-1).astype(q_BTNH.dtype)
    return jnp.einsum("bnts,bsnh->btnh", w_BNTS, v_BSNH), w_BNTS
