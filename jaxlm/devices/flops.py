"""Operations of a program, counted in its jaxpr: nothing is compiled."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core

HEADS_FIRST = 1
"""The `layout` of JAX's call of cuDNN whose arrays are BNTH, in place of BTNH."""


def flops(function: Callable[..., Any], *args: Any) -> float:
    """Operations that a call computes in products and convolutions, 2 for each multiplication and addition.

    The arguments may be jax.ShapeDtypeStruct. A scan counts its length times, a while loop once, the branches of a
    condition as the dearest. Attention by cuDNN counts as its products: 4 B N T S H forward and 10 B N T S H backward,
    where the weights are computed again; as in the plain form, keys count that a causal mask hides. A Pallas kernel
    counts once for each point of its grid. Operations beside products are left out.
    """
    return of_jaxpr(jax.make_jaxpr(function)(*args).jaxpr)


def of_jaxpr(jaxpr: core.Jaxpr) -> float:
    """The `flops` of a jaxpr."""
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2.0 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel, numbers = equation.invars[1].aval, params["dimension_numbers"]
        return 2.0 * equation.outvars[0].aval.size * kernel.size / kernel.shape[numbers.rhs_spec[0]]
    if name.startswith("dot_product_attention"):
        return _of_cudnn(equation)
    inner = [of_jaxpr(jaxpr) for value in params.values() for jaxpr in _jaxprs(value)]
    if name == "cond":
        return max(inner)
    return _repeats(name, params) * sum(inner)


def _of_cudnn(equation: Any) -> float:
    query, key = (operand.aval.shape for operand in equation.invars[:2])
    B, S, _, H = key
    T, N = query[1:3]
    if equation.params["layout"] == HEADS_FIRST:
        S, T, N = key[2], query[2], query[1]
    products = 5 if "bwd" in equation.primitive.name else 2
    return 2.0 * products * B * N * T * S * H


def _repeats(name: str, params: dict[str, Any]) -> float:
    """How often an equation's inner jaxprs are computed."""
    if name == "scan":
        return float(params["length"])
    if name == "pallas_call":
        return math.prod(float(size) for size in params["grid_mapping"].grid if isinstance(size, int))
    if name == "shard_map":
        return float(math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"]))
    return 1.0


def _jaxprs(value: Any) -> Iterator[core.Jaxpr]:
    if isinstance(value, core.ClosedJaxpr):
        yield value.jaxpr
    elif isinstance(value, core.Jaxpr):
        yield value
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _jaxprs(one)
