"""Three computations of the mean cross-entropy from logits, for E05."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxlm.ops import losses

LossFunction = Callable[[jax.Array, jax.Array], jax.Array]
"""(logits_NV, target_N) -> mean loss in nats."""


def by_hand(logits_NV: jax.Array, target_N: jax.Array) -> jax.Array:
    """Mean cross-entropy by exp, division by the sum, look-up and log: the lecture's first version."""
    count_NV = jnp.exp(logits_NV)
    return _mean_log(count_NV / jnp.sum(count_NV, axis=1, keepdims=True), target_N)


def by_softmax(logits_NV: jax.Array, target_N: jax.Array) -> jax.Array:
    """Mean cross-entropy by a softmax that shifts its logits, so that exp cannot overflow, then look-up and log."""
    return _mean_log(jax.nn.softmax(logits_NV), target_N)


def from_logits(logits_NV: jax.Array, target_N: jax.Array) -> jax.Array:
    """Mean cross-entropy directly from logits, by the package's own loss."""
    total, count = losses.cross_entropy(logits_NV, target_N)
    return total / count


def closed_gradient(logits_NV: jax.Array, target_N: jax.Array) -> jax.Array:
    """Gradient of the mean cross-entropy in closed form: (softmax - one-hot(target)) / N."""
    N, V = logits_NV.shape
    return (jax.nn.softmax(logits_NV) - jax.nn.one_hot(target_N, V)) / N


WAYS: dict[str, LossFunction] = {"by hand": by_hand, "by softmax": by_softmax, "from logits": from_logits}
"""The computations compared, by name."""


def _mean_log(p_NV: jax.Array, target_N: jax.Array) -> jax.Array:
    return -jnp.mean(jnp.log(jnp.take_along_axis(p_NV, target_N[:, None], axis=1)))
