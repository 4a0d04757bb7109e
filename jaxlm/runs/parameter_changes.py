"""Differences between the parameters of a checkpoint and those that a model has now, in words."""

from jaxlm.models.base import Params
from jaxlm.models.initialization import by_name

LISTED = 3
"""Most changed parameters that are named."""


def changed_parameters(was: Params, now: Params) -> str:
    """Name in a line the parameters whose name or shape differs in two trees of arrays, old and new; "" if none does.

    A parameter that is gone, while one new one has its shape, has another name now.
    """
    old, new = ({name: tuple(leaf.shape) for name, leaf in by_name(tree).items()} for tree in (was, now))
    gone, added = ({name: a[name] for name in a if name not in b} for a, b in ((old, new), (new, old)))
    words = [
        f"parameter {name!r} was {_extents(old[name])}, now {_extents(new[name])}"
        for name in old
        if name in new and old[name] != new[name]
    ]
    for name, shape in gone.items():
        same = [other for other in added if added[other] == shape]
        if len(same) == 1 and list(gone.values()).count(shape) == 1:
            words.append(f"parameter {name!r} ({_extents(shape)}) is named {same[0]!r} now")
            del added[same[0]]
        else:
            words.append(f"parameter {name!r} ({_extents(shape)}) is gone")
    words += [f"parameter {name!r} ({_extents(shape)}) is new" for name, shape in added.items()]
    more = [f"and {len(words) - LISTED} more"] if len(words) > LISTED else []
    return "; ".join([*words[:LISTED], *more])


def _extents(shape: tuple[int, ...]) -> str:
    """A shape in words: "5 x 32"."""
    return " x ".join(map(str, shape)) or "a number"
