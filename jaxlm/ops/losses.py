"""Pure losses. Each returns (sum, count): the caller divides once, after all sums are in.

Every sum runs in float32, whatever the type of its inputs.
"""

import jax
import jax.numpy as jnp

from jaxlm.ops.norms import shift_logits, unit


def nats_per_target(logits_NV: jax.Array, target_N: jax.Array) -> jax.Array:
    """-log softmax(z)[target] = log sum_u exp(z[u]) - z[target] of each row of logits, in nats.

    A target that cannot happen (its logit is -inf, or all of its row's are) costs +inf. Returns nats_N in float32.
    """
    shifted_NV, log_total_N1 = shift_logits(logits_NV)
    own_N1 = jnp.take_along_axis(shifted_NV, target_N[:, None], axis=1)
    return (log_total_N1 - own_N1)[:, 0]


def nats_and_log_z(logits_NV: jax.Array, target_N: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`nats_per_target` and the logarithm of the normalizer, log sum_u exp(z[u]), of each row, in float32."""
    return nats_per_target(logits_NV, target_N), jax.nn.logsumexp(logits_NV.astype(jnp.float32), axis=-1)


def weighted_sum(nats_N: jax.Array, weight_N: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Sum of weight * nats, and the sum of the weights, as float32 scalars.

    weight is 1 for a target that counts and 0 for padding, whose nats are never read. None: all count.
    """
    if weight_N is None:
        return jnp.sum(nats_N), jnp.float32(nats_N.size)
    weight_N = weight_N.astype(jnp.float32)
    return jnp.sum(jnp.where(weight_N > 0, nats_N * weight_N, 0.0)), jnp.sum(weight_N)


def cross_entropy(
    logits_NV: jax.Array, target_N: jax.Array, weight_N: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Sum of weight * -log softmax(logits)[target], and the sum of the weights; see `weighted_sum`."""
    return weighted_sum(nats_per_target(logits_NV, target_N), weight_N)


def contrastive(score_NK: jax.Array, weight_N: jax.Array) -> tuple[jax.Array, jax.Array]:
    """InfoNCE (van den Oord et al. 2018, equation 4): cross-entropy of row n's own candidate, column n, among all K.

    Where the candidates are draws from a distribution q, the score that minimises it is log p(v) / q(v) up to a
    constant of the row: p(v) is proportional to q(v) exp(score), if equal candidates are not masked.
    A column n < N counts as a candidate where the weight of row n is above 0; the others always do.
    """
    N, K = score_NK.shape
    there_K = jnp.concatenate([weight_N > 0, jnp.ones(K - N, bool)])
    return cross_entropy(jnp.where(there_K[None], score_NK, -jnp.inf), jnp.arange(N), weight_N)


def von_mises_fisher(emb_NE: jax.Array, unit_NE: jax.Array, weight_N: jax.Array) -> tuple[jax.Array, jax.Array]:
    """-log of the von Mises-Fisher density with mean direction and concentration e at unit vectors, up to a constant.

    -log C_E(|e|) - e . unit, with C_E(k) = k^v / ((2 pi)^(v + 1) I_v(k)), v = E / 2 - 1 (Kumar and Tsvetkov 2019,
    equation 4). The derivative of -log C is I_(v+1)(k) / I_v(k), for which its lower bound k / (a + sqrt(k^2 + b^2))
    stands, a = v + 1/2, b = v + 3/2 (Amos 1974); its integral is u - a log(a + u) with u = sqrt(k^2 + b^2).
    """
    emb_NE, unit_NE = emb_NE.astype(jnp.float32), unit_NE.astype(jnp.float32)
    v = emb_NE.shape[-1] / 2 - 1
    a, b = v + 0.5, v + 1.5
    u_N = jnp.sqrt(jnp.sum(jnp.square(emb_NE), axis=-1) + b * b)
    nats_N = u_N - a * jnp.log(a + u_N) - jnp.sum(emb_NE * unit_NE, axis=-1)
    return _weighted(nats_N, weight_N)


def cosine_distance(emb_NE: jax.Array, unit_NE: jax.Array, weight_N: jax.Array) -> tuple[jax.Array, jax.Array]:
    """1 - cos(e, unit) of each row, summed by weight, and the sum of the weights."""
    cosine_N = jnp.sum(unit(emb_NE.astype(jnp.float32)) * unit_NE.astype(jnp.float32), axis=-1)
    return _weighted(1 - cosine_N, weight_N)


def squared_error(emb_NE: jax.Array, row_NE: jax.Array, weight_N: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean over the width of (e - row)^2 of each row, summed by weight, and the sum of the weights."""
    square_NE = jnp.square(emb_NE.astype(jnp.float32) - row_NE.astype(jnp.float32))
    return _weighted(jnp.mean(square_NE, axis=-1), weight_N)


def mean_square(tree: object) -> jax.Array:
    """Sum over the arrays of a tree of each one's mean(w ** 2)."""
    return sum((jnp.mean(jnp.square(w.astype(jnp.float32))) for w in jax.tree.leaves(tree)), jnp.zeros(()))


def _weighted(loss_N: jax.Array, weight_N: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The weighted sum of losses, and the sum of the weights, in float32."""
    weight_N = weight_N.astype(jnp.float32)
    return jnp.sum(loss_N * weight_N), jnp.sum(weight_N)
