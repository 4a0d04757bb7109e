"""Losses of word2vec's updates with explicit gradients: skip-gram, CBOW and hierarchical softmax.

The formulas are in word2vec/model.py.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

SOFTPLUS_LINEAR = 20.0
"""Logit above which softplus(x) equals x in float32."""
FACTORS = 4
"""Number of factors up to 1 + exp(SOFTPLUS_LINEAR) whose product does not overflow float32."""


class Gradients(NamedTuple):
    """The summed loss of an update and its negative gradients."""

    loss: jax.Array
    """Summed loss in nats."""
    input_rows: jax.Array
    """Negative gradient of the input vectors."""
    output_rows: jax.Array
    """Negative gradient of the output vectors of predicted words or nodes."""
    negatives_ME: jax.Array | None
    """Negative gradient of the output vectors of negatives; None for hierarchical softmax."""


def skip_gram(x_GTE: jax.Array, y_GHE: jax.Array, z_ME: jax.Array, mask_GTH: jax.Array, negatives: int) -> Gradients:
    """Skip-gram with negative sampling: input vectors x of words, output vectors y of their neighbours, z of negatives.

    The loss is summed over the pairs where the mask is True: -log s(x . y) - negatives * mean over M of log s(-x . z).
    """
    G, T, E = x_GTE.shape
    M = z_ME.shape[0]
    x_NE = x_GTE.reshape(G * T, E)
    pairs_N = jnp.sum(mask_GTH, axis=2).reshape(G * T).astype(jnp.float32)
    logit_GTH = jnp.einsum("gte,ghe->gth", x_GTE, y_GHE)
    q_GTH = jnp.where(mask_GTH, _one_plus_exp(logit_GTH), 1.0)
    pull_GTH = jnp.where(mask_GTH, 1 / q_GTH, 0.0)
    away_NM, loss_N = _negatives(x_NE, z_ME, pairs_N * (negatives / M))
    linear_GTH = jnp.where(mask_GTH, jnp.maximum(logit_GTH - SOFTPLUS_LINEAR, 0.0) - logit_GTH, 0.0)
    loss = jnp.sum(_log_products(q_GTH)) + jnp.sum(linear_GTH) + jnp.sum(loss_N)
    return Gradients(
        loss,
        jnp.einsum("gth,ghe->gte", pull_GTH, y_GHE).reshape(G * T, E) - away_NM @ z_ME,
        jnp.einsum("gth,gte->ghe", pull_GTH, x_GTE),
        -away_NM.T @ x_NE,
    )


def cbow(
    x_RE: jax.Array, y_NE: jax.Array, z_ME: jax.Array, mask_NC: jax.Array, negatives: int, *, mean: bool
) -> Gradients:
    """CBOW with negative sampling: mean or sum of neighbours' input vectors x, output vectors y of words, negatives z.

    The N words are consecutive; x has R = N + C rows, theirs and those of C / 2 words before and after them.
    As in word2vec's program, a neighbour receives the gradient times the number of neighbours for a mean, and the
    gradient divided by it for a sum; otherwise the mean learns too slowly, or the sum diverges.
    """
    N, M, W = y_NE.shape[0], z_ME.shape[0], mask_NC.shape[1] // 2
    mask_NC = mask_NC.astype(jnp.float32)
    count_N = jnp.sum(mask_NC, axis=1)
    share_N1 = 1 / jnp.maximum(count_N, 1.0)[:, None]
    offsets = [*range(-W, 0), *range(1, W + 1)]
    # Sums of shifted rows take a quarter of the operations of a banded product. The barrier keeps XLA from summing them
    # again in every product that uses them.
    near = [mask_NC[:, c, None] * x_RE[W + o :][:N] for c, o in enumerate(offsets)]
    sum_NE = sum(near[1:], near[0])
    h_NE = lax.optimization_barrier(sum_NE * share_N1 if mean else sum_NE)
    counts_N = (count_N > 0).astype(jnp.float32)
    logit_N = jnp.sum(h_NE * y_NE, axis=1)
    q_N = _one_plus_exp(logit_N)
    pull_N1 = (counts_N / q_N)[:, None]
    away_NM, loss_N = _negatives(h_NE, z_ME, counts_N * (negatives / M))
    positive_N = jnp.log(q_N) + jnp.maximum(logit_N - SOFTPLUS_LINEAR, 0.0) - logit_N
    error_NE = pull_N1 * y_NE - away_NM @ z_ME
    error_NE = lax.optimization_barrier(error_NE if mean else error_NE * share_N1)
    edge = ((2 * W, 2 * W), (0, 0))
    error_PE, mask_PC = jnp.pad(error_NE, edge), jnp.pad(mask_NC, edge)
    rows = [mask_PC[W - o :, c, None][: N + 2 * W] * error_PE[W - o :][: N + 2 * W] for c, o in enumerate(offsets)]
    return Gradients(
        jnp.sum(counts_N * positive_N) + jnp.sum(loss_N),
        sum(rows[1:], rows[0]),
        pull_N1 * h_NE,
        -away_NM.T @ h_NE,
    )


def hierarchical_softmax(
    x_NCE: jax.Array, y_NLE: jax.Array, sign_NL: jax.Array, mask_NC: jax.Array, *, average: str | None
) -> Gradients:
    """Hierarchical softmax: input vectors x of a word's C neighbours, output vectors y of the nodes on its path.

    The loss is -sum_n log s(sign_n x . y_n); a sign of 0 is padding. `average` is None for skip-gram, where each
    neighbour predicts alone, and "mean" or "sum" for CBOW, with gradients distributed as in `cbow`.
    """
    mask_NC1 = mask_NC[:, :, None].astype(jnp.float32)
    count_N11 = jnp.maximum(jnp.sum(mask_NC1, axis=1, keepdims=True), 1.0)
    if average is None:
        h_NCE, counts_NC1 = x_NCE, mask_NC1
    else:
        h_NCE = jnp.sum(x_NCE * mask_NC1, axis=1, keepdims=True) / (count_N11 if average == "mean" else 1.0)
        counts_NC1 = jnp.max(mask_NC1, axis=1, keepdims=True)
    sign_N1L = sign_NL[:, None, :]
    logit_NCL = jnp.einsum("nce,nle->ncl", h_NCE, y_NLE) * sign_N1L
    counts_NCL = counts_NC1 * jnp.abs(sign_N1L)
    pull_NCL = counts_NCL * sign_N1L * jax.nn.sigmoid(-logit_NCL)
    error_NCE = jnp.einsum("ncl,nle->nce", pull_NCL, y_NLE)
    if average is not None:
        error_NCE = mask_NC1 * (error_NCE if average == "mean" else error_NCE / count_N11)
    return Gradients(
        jnp.sum(counts_NCL * jax.nn.softplus(-logit_NCL)),
        error_NCE,
        jnp.einsum("ncl,nce->nle", pull_NCL, h_NCE),
        None,
    )


def _negatives(x_NE: jax.Array, z_ME: jax.Array, weight_N: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Loss of the negatives, weight * sum over M of -log s(-x . z), and its slopes; returns (slope_NM, loss_N)."""
    logit_NM = x_NE @ z_ME.T
    q_NM = _one_plus_exp(logit_NM)
    loss_N = jnp.sum(_log_products(q_NM), axis=1) + jnp.sum(jnp.maximum(logit_NM - SOFTPLUS_LINEAR, 0.0), axis=1)
    return (1 - 1 / q_NM) * weight_N[:, None], weight_N * loss_N


def _one_plus_exp(x: jax.Array) -> jax.Array:
    """Compute q = 1 + exp(min(x, L)), L = SOFTPLUS_LINEAR: softplus(x) = log q + max(x - L, 0), s(-x) = 1 / q."""
    return 1 + jnp.exp(jnp.minimum(x, SOFTPLUS_LINEAR))


def _log_products(q: jax.Array) -> jax.Array:
    """Logarithms of products of FACTORS numbers along the last axis: fewer logarithms with the same sum."""
    whole = q.shape[-1] // FACTORS * FACTORS
    factors = q[..., :whole].reshape(*q.shape[:-1], whole // FACTORS, FACTORS)
    products = jnp.log(jnp.prod(factors, axis=-1))
    return jnp.concatenate([products, jnp.log(q[..., whole:])], axis=-1) if whole < q.shape[-1] else products
