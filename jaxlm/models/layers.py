"""How the layers of a stack follow each other: as a loop of compiled blocks, or one after the other."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from jaxlm.config.transformer import TransformerConfig
from jaxlm.ops.target import target

UNROLLED, UNROLLED_ON_CPU = 4, 8
"""Layers up to which they are compiled one after the other: it spares a small step the copies into and out of stacks,
6 % of a step of 6 layers x 384 on a CPU, but takes twice the time to compile and seven times the code on a TPU."""


class Kind(NamedTuple):
    """The properties on which a layer's program depends; layers of one kind are one program in a loop."""

    window: int | None
    """Tokens that it sees. None: all."""
    has_value: bool
    """True if it has value embeddings."""


Block = Callable[[Any, Kind, Any, Any], Any]
"""(carry, kind, the layer's part of the stack, its part of the values or None) -> carry."""


def kinds(config: TransformerConfig) -> tuple[Kind, ...]:
    """The kind of each layer."""
    return tuple(map(Kind, config.windows, config.value_layers))


def is_loop(config: TransformerConfig) -> bool:
    """True if the layers are a loop: model.scan, or by their number and the platform."""
    if config.scan is not None:
        return config.scan
    return config.n_layers > (UNROLLED_ON_CPU if target().platform == "cpu" else UNROLLED)


def repetition(kinds: Sequence[Any]) -> tuple[int, int]:
    """(P, R): the first P * R layers are R times the same P kinds, with as few blocks to compile as can be."""

    def repeats(P: int) -> int:
        R = 1
        while tuple(kinds[R * P : (R + 1) * P]) == tuple(kinds[:P]):
            R += 1
        return R

    pairs = [(P, repeats(P)) for P in range(1, len(kinds) + 1)]
    return min(pairs, key=lambda pair: len(kinds) - pair[0] * (pair[1] - 1))


def run(block: Block, carry: Any, kinds: Sequence[Kind], stack: Any, values: Any, *, loop: bool) -> Any:
    """The carry after all layers, in order; without `loop` the loop is unrolled.

    Arrays of `stack` have a first axis of all layers, those of `values` one of the layers with value embeddings.
    """
    P, R = repetition(kinds)
    V = sum(kind.has_value for kind in kinds[:P])

    def one(carry: Any, parts: Any) -> tuple[Any, None]:
        own, value = parts
        return block(carry, kinds[0], own, value if V else None), None

    def several(carry: Any, parts: Any) -> tuple[Any, None]:
        return _in_order(block, carry, kinds[:P], *parts), None

    def part(stack: Any, size: int) -> Any:
        if P == 1:  # without the reshapes of groups, after which a CPU adds up gradients in another order
            return _first(stack, size * R)
        return _grouped(stack, size, R)

    parts = part(stack, P), part(values, V) if V else {}
    carry, _ = jax.lax.scan(one if P == 1 else several, carry, parts, unroll=1 if loop else R)
    return _in_order(block, carry, kinds[P * R :], _rest(stack, P * R), _rest(values, V * R))


def rematerialized(config: TransformerConfig, block: Block, *, loop: bool) -> Block:
    """The block, of which model.remat says what is computed again for the gradient.

    products: only products with weights are saved, not those of attention, which have a batch of heads. blocks: only
    the stream between blocks is. A loop's body needs no barrier against merging both computations, which the compiler
    would otherwise do.
    """
    if config.remat in ("none", "activations"):
        return block
    policies = jax.checkpoint_policies
    policy = policies.dots_with_no_batch_dims_saveable if config.remat == "products" else policies.nothing_saveable
    return jax.checkpoint(block, policy=policy, prevent_cse=not loop, static_argnums=1)


def _in_order(block: Block, carry: Any, kinds: Sequence[Kind], stack: Any, values: Any) -> Any:
    place = 0
    for i, kind in enumerate(kinds):
        value = None
        if kind.has_value:
            value, place = _layer(values, place), place + 1
        carry = block(carry, kind, _layer(stack, i), value)
    return carry


def _layer(stack: Any, i: int) -> Any:
    return jax.tree.map(lambda x: x[i], stack)


def _first(stack: Any, count: int) -> Any:
    return jax.tree.map(lambda x: x if x.shape[0] == count else x[:count], stack)


def _grouped(stack: Any, size: int, count: int) -> Any:
    return jax.tree.map(lambda x: x.reshape(count, size, *x.shape[1:]), _first(stack, size * count))


def _rest(stack: Any, first: int) -> Any:
    return jax.tree.map(lambda x: x[first:], stack)
