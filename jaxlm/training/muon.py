"""The direction of Muon's updates: momentum whose matrices are made orthogonal."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from jaxlm.devices import layout
from jaxlm.models.base import Axes
from jaxlm.ops.orthogonal import QUINTIC, newton_schulz
from jaxlm.training.matrices import Sides, map_sides


def scale_by_muon(beta: float, axes: Axes) -> optax.GradientTransformation:
    """Nesterov's momentum, its bias corrected as in NAdam (Dozat 2016), with each matrix made orthogonal.

    `axes` are the model's, by which matrices are known. On several devices each takes whole matrices of some layers:
    the momentum is sent to where it is needed once, before the iterations, and not in each of them.
    """

    def init(params: Any) -> contrib.MuonState:
        return contrib.MuonState(jnp.zeros([], jnp.int32), optax.tree.zeros_like(params), jnp.asarray(QUINTIC))

    def update(updates: Any, state: contrib.MuonState, params: Any = None) -> tuple[Any, contrib.MuonState]:
        momentum = optax.tree.update_moment(updates, state.mu, beta, 1)
        count = optax.safe_increment(state.count)
        ahead = jax.tree.map(
            lambda m, g: beta * m + (1 - beta) * g,
            optax.tree.bias_correction(momentum, beta, optax.safe_increment(count)),
            optax.tree.bias_correction(updates, beta, count),
        )
        updates = map_sides(lambda sides, x: _orthogonal(x, sides, state.ns_coeffs), axes, ahead)
        return updates, contrib.MuonState(count, momentum, state.ns_coeffs)

    return optax.GradientTransformation(init, update)


def _orthogonal(x: jax.Array, sides: Sides, coefficients: jax.Array) -> jax.Array:
    """An array with its matrices made orthogonal; its other dimensions are layers."""
    inputs, outputs = sides
    order = (*(place for place in range(x.ndim) if place not in inputs + outputs), *inputs, *outputs)
    turned = x.transpose(order)
    I, O = (math.prod(x.shape[place] for place in side) for side in sides)
    y_LIO = layout.over_all(newton_schulz, turned.reshape(-1, I, O), coefficients)
    back = sorted(range(x.ndim), key=order.__getitem__)
    return y_LIO.reshape(turned.shape).transpose(back)
