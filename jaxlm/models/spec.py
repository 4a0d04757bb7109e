"""A parameter before it is drawn: its shape, its logical axes and its initialiser, in one place."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax

from jaxlm.models.base import Axes

INIT = 0.02
"""Standard deviation of GPT-2's parameters at the start."""


class Spec(NamedTuple):
    """A parameter of a module."""

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    """The logical axis of each dimension: names of devices.mesh.RULES."""
    init: Callable[..., jax.Array] = nn.initializers.normal(INIT)


Specs = dict[str, Spec]
"""By the parameter's name, in the order in which they are drawn."""


def axes(specs: Specs) -> Axes:
    """The logical axes of each parameter."""
    return {name: spec.axes for name, spec in specs.items()}
