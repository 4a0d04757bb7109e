"""The ways from logits to a mean loss that E05 compares."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxlm.ops import losses

LossFunction = Callable[[jax.Array, jax.Array], jax.Array]


def by_hand(logits_NV: jax.Array, target_N: jax.Array) -> jax.Array:
    """exp, divide by the sum, take the target's, log: the lecture's first way."""
    count_NV = jnp.exp(logits_NV)
    return _mean_log(count_NV / jnp.sum(count_NV, axis=1, keepdims=True), target_N)


def by_softmax(logits_NV: jax.Array, target_N: jax.Array) -> jax.Array:
    """The same with a softmax that shifts its logits, so that exp cannot overflow."""
    return _mean_log(jax.nn.softmax(logits_NV), target_N)


def from_logits(logits_NV: jax.Array, target_N: jax.Array) -> jax.Array:
    """The package's own loss."""
    total, count = losses.cross_entropy(logits_NV, target_N)
    return total / count


def closed_gradient(logits_NV: jax.Array, target_N: jax.Array) -> jax.Array:
    """What the gradient comes to: (softmax - one-hot(target)) / N."""
    N, V = logits_NV.shape
    return (jax.nn.softmax(logits_NV) - jax.nn.one_hot(target_N, V)) / N


WAYS: dict[str, LossFunction] = {"by hand": by_hand, "by softmax": by_softmax, "from logits": from_logits}


def _mean_log(p_NV: jax.Array, target_N: jax.Array) -> jax.Array:
    return -jnp.mean(jnp.log(jnp.take_along_axis(p_NV, target_N[:, None], axis=1)))
