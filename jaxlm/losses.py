"""Pure losses. Each returns (sum, count): the caller divides once, after all sums are in."""

import jax
import jax.numpy as jnp

from jaxlm.ops import log_normalize


def nats_per_target(logits_NV: jax.Array, target_N: jax.Array) -> jax.Array:
    """-log softmax(logits)[target] of each row, in nats, taken from the logits.

    A target that cannot happen (its logit is -inf, or all of its row's are) costs +inf. Returns nats_N in float32.
    """
    return -jnp.take_along_axis(log_normalize(logits_NV), target_N[:, None], axis=-1)[:, 0]


def cross_entropy(
    logits_NV: jax.Array, target_N: jax.Array, weight_N: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Sum of weight * -log softmax(logits)[target], and the sum of the weights, as float32 scalars.

    weight is 1 for a target that counts and 0 for padding, whose nats are never read. None: all count.
    """
    nats_N = nats_per_target(logits_NV, target_N)
    if weight_N is None:
        return jnp.sum(nats_N), jnp.float32(nats_N.size)
    return jnp.sum(jnp.where(weight_N > 0, nats_N * weight_N, 0.0)), jnp.sum(weight_N.astype(jnp.float32))


def mean_square(tree: object) -> jax.Array:
    """Sum over the arrays of a tree of each one's mean(w ** 2)."""
    return sum((jnp.mean(jnp.square(w)) for w in jax.tree.leaves(tree)), jnp.zeros(()))
