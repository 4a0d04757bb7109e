"""The matrices among a model's parameters, by their logical axes: what Muon orthogonalises and decay may be left to."""

from collections.abc import Callable
from typing import Any

import jax

from jaxlm.devices.mesh import WHOLE_HEADS
from jaxlm.errors import UserError
from jaxlm.models.base import Axes

Sides = tuple[tuple[int, ...], tuple[int, ...]]
"""The dimensions of an array that are a matrix's inputs, and those that are its outputs."""
TABLES = ("vocab", "length")
"""Logical axes of tables whose rows stand for tokens or positions: embeddings, unembeddings, positions."""


def sides(axes: tuple[str | None, ...]) -> Sides | None:
    """The dimensions of a parameter that are a matrix's inputs and outputs; None for one that is no matrix.

    A matrix has two dimensions beside "layers", neither of which counts tokens or positions; heads and their width are
    one: ("layers", "embed", "heads", "head") gives ((1,), (2, 3)), ("layers", "heads", "head", "embed") ((1, 2), (3,)).
    Inputs come first, as in x W.
    """
    groups: list[tuple[int, ...]] = []
    for place, axis in enumerate(axes):
        if axis in TABLES:
            return None
        if axis == "head" and place and axes[place - 1] in WHOLE_HEADS:
            groups[-1] = (*groups[-1], place)
        elif axis != "layers":
            groups.append((place,))
    return (groups[0], groups[1]) if len(groups) == 2 else None


def map_sides(function: Callable[[Any, Any], Any], axes: Axes, tree: Any) -> Any:
    """Apply function(sides or None, leaf) to each leaf of a tree of parameters. `axes` are the model's.

    Raises UserError for a parameter without logical axes, as a model of the user's own may have.
    """
    names = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    bare = [name for name in names if name not in axes]
    if bare:
        raise UserError(
            f"optim.name muon and optim.decay matrices want a model that has the logical axes of its parameters, got "
            f"none of {', '.join(bare[:3])}: give it `axes` (docs/extending.md), or take adamw and optim.decay all"
        )
    return jax.tree_util.tree_map_with_path(lambda path, x: function(sides(axes[_name(path)]), x), tree)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
