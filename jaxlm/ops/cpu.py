"""Forms of products and attention that only a CPU computes faster, with what each earns; never part of a GPU's program.

XLA's CPU compiler reads a transposed operand of a small product number by number. The forms here take the product with
the weights' rows first, and lay out the transpose of a left factor; barriers keep XLA from turning them round again.

Measured with jax 0.10.2 on two cores, interleaved in one process, as medians. Tried and left out, since none earned a
tenth of a step: an embedding's gradient as a product with one-hot rows or by a wider scatter, a loss over columns of
logits, a sum of bias gradients as a product.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

FEW_ROWS = 256
"""Rows up to which the product with the vocabulary is taken as here: at 8,192 it takes three times as long."""

SHORT_ROWS = 128
"""Positions up to which a causal mean is a product."""

LONG_QUERIES = 256
"""Queries from which on attention is taken in blocks of them."""

QUERY_BLOCKS = 4
"""Blocks of queries: of the products with keys they leave out 3 of 8, more would leave out at most another eighth."""

_laid_out = jax.lax.optimization_barrier


def dense_gradients(x_NI: jax.Array, w_IO: jax.Array, dy_NO: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The gradients of y = x W, as dx = (W dy^T)^T and dW = x^T dy.

    Without it the step of names_mlp takes 1.17 times as long (65 -> 76 us).
    """
    return _laid_out(w_IO @ dy_NO.T).T, _laid_out(x_NI.T) @ dy_NO


def unembed(h_NF: jax.Array, w_VF: jax.Array) -> jax.Array:
    """The product y = h W^T, as (W h^T)^T. See `unembed_gradients`."""
    return _laid_out(w_VF @ h_NF.T).T


def unembed_gradients(h_NF: jax.Array, w_VF: jax.Array, dy_NV: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The gradients of y = h W^T, as dh = dy W and dW = dy^T h with dy^T laid out once for both.

    Without it and `unembed` the step of names_mlp takes 1.1 times as long (67 -> 73 us).
    """
    dy_VN = _laid_out(dy_NV.T)
    return _laid_out(dy_VN.T) @ w_VF, dy_VN @ h_NF


def causal_mean(x_TBD: jax.Array) -> jax.Array:
    """The mean so far as a product with a triangle of weights 1 / (t + 1), in float32 with full precision.

    With a running sum instead, the step of the bag of words takes 1.28 times as long (1.00 -> 1.28 ms, batches of 32 x
    16 tokens, 64 wide, AdamW).
    """
    T, B, D = x_TBD.shape
    weight_TT = jnp.tril(jnp.ones((T, T))) / jnp.arange(1, T + 1, dtype=jnp.float32)[:, None]
    mean_TX = jnp.matmul(weight_TT, x_TBD.reshape(T, B * D), precision=jax.lax.Precision.HIGHEST)
    return mean_TX.reshape(T, B, D)


def attention_in_blocks(
    attend: Callable[..., tuple[jax.Array, jax.Array]],
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    *,
    window: int | None,
    start_BT: jax.Array | None,
    **masks: Any,
) -> jax.Array:
    """Causal attention by `attend`, on blocks of queries and the keys that they can see. Returns y_BTNH.

    With its gradient it takes 82 ms of processor time where the whole takes 132 (two blocks: 112), for 8 x 256
    positions and 6 heads of 64. Beyond 256 positions it saves as much of a larger share of a step.
    """
    T = q_BTNH.shape[1]
    size, parts = -(-T // QUERY_BLOCKS), []
    for begin in range(0, T, size):
        end, low = min(T, begin + size), 0 if window is None else max(0, begin - window + 1)
        start = None if start_BT is None else start_BT[:, begin:end] - low
        keys, values = k_BTKH[:, low:end], v_BTKH[:, low:end]
        y, _ = attend(q_BTNH[:, begin:end], keys, values, begin - low, window=window, start_BT=start, **masks)
        parts.append(y)
    return jnp.concatenate(parts, axis=1)
