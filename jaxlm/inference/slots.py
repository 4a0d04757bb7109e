"""Programs of a running batch: rows of one model that are read, joined, stepped and moved, each at its own place.

A batch has a power of 2 of places, so that few sizes are compiled. A row's prompt is read apart, into a cache of one
row, which is then written to its place: the rows beside it are not touched, and a width's program serves all sizes.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.inference import sampling
from jaxlm.inference.sampling import RowSettings
from jaxlm.models.base import LanguageModel, Params
from jaxlm.ops import prng

MOST_TOP = 20
"""Most likely tokens of a step whose probabilities are given."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slots:
    """The rows of a batch on the device."""

    cache: Any
    """The model's, of all tokens but the last of each row."""
    key_B2: jax.Array
    """The two words of each row's key."""
    tok_B: jax.Array
    """Last token of each row, which the cache does not have yet."""
    count_B: jax.Array
    """New tokens of each row: a token's number, by which it is drawn."""
    seen_BV: jax.Array
    """Tokens that the repetition penalty is for."""
    settings: RowSettings


class Joining(NamedTuple):
    """A row as it begins, or begins again: plain numbers and arrays of the host."""

    seed: np.uint32 | jax.Array
    place: np.int32 | jax.Array
    tok: np.int32 | jax.Array
    made: np.int32 | jax.Array
    """New tokens that it has already."""
    seen_V: np.ndarray | jax.Array
    settings: RowSettings
    """Of this one row."""


class Likelihoods(NamedTuple):
    """log p, in nats, by the model's own distribution: no temperature, no filter, no penalty."""

    chosen_N: jax.Array
    top_NK: jax.Array
    """The most likely tokens, the first one first."""
    log_p_NK: jax.Array


class Step(NamedTuple):
    """What one step drew."""

    tok_B: jax.Array
    likelihoods: Likelihoods
    """Zeros unless they were asked for."""


def batch_axes(model: LanguageModel[Any], params: Params, room: int) -> Any:
    """The axis of each of the cache's arrays along which rows lie, found by comparing two sizes of batch; -1: none."""
    two, three = (jax.eval_shape(lambda p, n=n: model.init_cache(p, n, room), params) for n in (2, 3))

    def axis(a: Any, b: Any) -> int:
        return next((i for i, (m, n) in enumerate(zip(a.shape, b.shape, strict=True)) if m != n), -1)

    return jax.tree.map(axis, two, three)


def empty(model: LanguageModel[Any], params: Params, batch: int, room: int) -> Slots:
    """A batch of rows that have read nothing."""
    return Slots(
        cache=model.init_cache(params, batch, room),
        key_B2=jnp.zeros((batch, 2), jnp.uint32),
        tok_B=jnp.zeros(batch, jnp.int32),
        count_B=jnp.zeros(batch, jnp.int32),
        seen_BV=jnp.zeros((batch, model.vocab_size), bool),
        settings=RowSettings(*(jnp.asarray(x) for x in sampling.Strategy().rows(batch))),
    )


def read(model: LanguageModel[Any], params: Params, row_cache: Any, tok_1T: jax.Array, length_1: jax.Array) -> Any:
    """The cache of one row with more of its prompt in it; the logits are not used, and therefore not computed."""
    return model.extend(params, row_cache, tok_1T, length_1)[1]


def read_scored(
    model: LanguageModel[Any],
    params: Params,
    row_cache: Any,
    tok_1T: jax.Array,
    length_1: jax.Array,
    target_T: jax.Array,
) -> tuple[Any, Likelihoods]:
    """The same, and log p of the token after each one that was read."""
    logits_1TV, row_cache = model.extend(params, row_cache, tok_1T, length_1)
    return row_cache, likelihoods(logits_1TV[0], target_T)


def join(axes: tuple[int, ...], slots: Slots, place: jax.Array, row_cache: Any, joining: Joining) -> Slots:
    """Write a row to its place. The slots given are used up; the row's cache is not."""
    structure = jax.tree.structure(slots.cache)

    def put(axis: int, whole: jax.Array, row: jax.Array) -> jax.Array:
        return whole if axis < 0 else jax.lax.dynamic_update_slice_in_dim(whole, row, place, axis)

    leaves = map(put, axes, jax.tree.leaves(slots.cache), jax.tree.leaves(row_cache))
    words = jnp.stack([jnp.uint32(0), jnp.uint32(joining.seed)])
    key = jax.random.fold_in(jax.random.wrap_key_data(words, impl=prng.GENERATOR), joining.place)
    return Slots(
        cache=jax.tree.unflatten(structure, leaves),
        key_B2=slots.key_B2.at[place].set(jax.random.key_data(key)),
        tok_B=slots.tok_B.at[place].set(joining.tok),
        count_B=slots.count_B.at[place].set(joining.made),
        seen_BV=slots.seen_BV.at[place].set(joining.seen_V),
        settings=RowSettings(
            *(jnp.asarray(x_B).at[place].set(x) for x_B, x in zip(slots.settings, joining.settings, strict=True))
        ),
    )


def row_of(axes: tuple[int, ...], slots: Slots, place: jax.Array) -> Any:
    """The cache of the row at a place, as a batch of one."""
    leaves, structure = jax.tree.flatten(slots.cache)

    def at(axis: int, whole: jax.Array) -> jax.Array:
        return whole if axis < 0 else jax.lax.dynamic_slice_in_dim(whole, place, 1, axis)

    return jax.tree.unflatten(structure, map(at, axes, leaves))


def moved(axes: tuple[int, ...], slots: Slots, from_M: jax.Array) -> Slots:
    """A batch of another size: its row m is the row from_M[m] of the one given."""
    leaves, structure = jax.tree.flatten(slots.cache)

    def take(axis: int, whole: jax.Array) -> jax.Array:
        return whole if axis < 0 else jnp.take(whole, from_M, axis=axis)

    rest = {field.name: getattr(slots, field.name) for field in dataclasses.fields(slots) if field.name != "cache"}
    rest = jax.tree.map(lambda x: jnp.take(x, from_M, axis=0), rest)
    return Slots(cache=jax.tree.unflatten(structure, map(take, axes, leaves)), **rest)


def step(
    model: LanguageModel[Any],
    params: Params,
    slots: Slots,
    active_B: jax.Array,
    allowed_V: jax.Array,
    eos: jax.Array,
    scores: jax.Array,
) -> tuple[Slots, Step]:
    """Draw a token for each row that is active, as `engine.run` does; the slots given are used up.

    `scores` says whether log p is asked for: without it nothing is computed for it.
    """
    logits_B1V, row_cache = model.extend(params, slots.cache, slots.tok_B[:, None], active_B.astype(jnp.int32))
    logits_BV, settings = logits_B1V[:, 0], slots.settings
    seen_BV = sampling.with_seen(slots.seen_BV, slots.tok_B, eos)
    z_BV = sampling.filtered(logits_BV, settings, allowed_V, seen_BV)
    key_B = jax.random.wrap_key_data(slots.key_B2, impl=prng.GENERATOR)
    drawn_B = sampling.draw(sampling.uniform(key_B, slots.count_B, settings), z_BV)
    tok_B = jnp.where(active_B, drawn_B, slots.tok_B)
    none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(likelihoods, logits_BV, tok_B))
    found = jax.lax.cond(scores, likelihoods, lambda *_: none, logits_BV, tok_B)
    count_B = slots.count_B + active_B.astype(jnp.int32)
    return Slots(row_cache, slots.key_B2, tok_B, count_B, seen_BV, settings), Step(tok_B, found)


def likelihoods(logits_NV: jax.Array, tok_N: jax.Array) -> Likelihoods:
    """Log p of each token, and of the MOST_TOP most likely ones (all, of a smaller vocabulary), by softmax(logits)."""
    log_p_NV = jax.nn.log_softmax(logits_NV.astype(jnp.float32), axis=-1)
    chosen_N = jnp.take_along_axis(log_p_NV, tok_N[:, None], axis=1)[:, 0]
    log_p_NK, top_NK = jax.lax.top_k(log_p_NV, min(MOST_TOP, log_p_NV.shape[1]))
    return Likelihoods(chosen_N, top_NK.astype(jnp.int32), log_p_NK)


def taken_back(model: LanguageModel[Any], row_cache: Any, count: int) -> Any | None:
    """The cache with its first `count` tokens alone; None of a model that can only read them again.

    Those are all whose cache is more than tokens at positions, behind which nothing is seen.
    """
    if hasattr(getattr(model, "module", None), "rolled_back") and isinstance(row_cache, Mapping):
        return {**row_cache, "position": np.full(1, count, np.int32)}
    return None


class Programs(NamedTuple):
    """The functions above, compiled."""

    empty: Callable[..., Slots]
    read: Callable[..., Any]
    read_scored: Callable[..., tuple[Any, Likelihoods]]
    join: Callable[..., Slots]
    row_of: Callable[..., Any]
    moved: Callable[..., Slots]
    step: Callable[..., tuple[Slots, Step]]


@cache
def programs(**options: int | bool) -> Programs:
    """The programs with the given options of the compiler."""

    def compiled(function: Any, fixed: tuple[str, ...], donate: tuple[str, ...] = ()) -> Any:
        return jax.jit(function, static_argnames=fixed, donate_argnames=donate, compiler_options=options)

    return Programs(
        compiled(empty, ("model", "batch", "room")),
        compiled(read, ("model",)),
        compiled(read_scored, ("model",)),
        compiled(join, ("axes",), ("slots",)),
        compiled(row_of, ("axes",)),
        compiled(moved, ("axes",)),
        compiled(step, ("model",), ("slots",)),
    )
