"""The engine: prompts of unequal length are read in one pass, then one compiled loop draws tokens.

`start` reads prompts and gives a state, `run` goes on from a state by some tokens. Settings, limits and the number of
tokens are arrays: other values compile nothing. `decode` is what all callers use: it makes both from rows of tokens.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.devices import compilation
from jaxlm.inference import sampling
from jaxlm.inference.sampling import RowSettings
from jaxlm.models.base import LanguageModel, Params
from jaxlm.tokenizers import EOS

NEVER = -1
"""In place of a token that ends a text: none does."""
ANY, NOTHING = -1, -2
"""Fillers on the left: of a stop sequence (matches every token), of the tokens that a row has drawn (matches none)."""


class Rules(NamedTuple):
    """Settings, limits and ends of the rows: arrays, so that other values compile nothing."""

    settings: RowSettings
    limit_B: np.ndarray | jax.Array
    """Tokens after which a row is done, those before this start counted."""
    allowed_V: np.ndarray | jax.Array
    """False for tokens that are never drawn."""
    end: np.ndarray | jax.Array
    """A row is done after this token. NEVER: none ends it."""
    stop_S: np.ndarray | jax.Array
    """A row is done once its new tokens end with these, filled up with ANY on the left. S = 0: none."""
    eos: np.ndarray | jax.Array
    """The token that the repetition penalty is never for."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Rows that are being continued, between two calls of `run`."""

    cache: Any
    """The model's, of all tokens but the last of each row."""
    key_B: jax.Array
    tok_B: jax.Array
    """Last token of each row, which the cache does not have yet."""
    count_B: jax.Array
    """New tokens of each row, those before this start counted: a token's number, by which it is drawn."""
    done_B: jax.Array
    seen_BV: jax.Array
    """Tokens that the repetition penalty is for."""
    tail_BS: jax.Array
    """The last new tokens of each row, as many as a stop sequence has."""
    made_NB: jax.Array
    """Tokens that were drawn since the start, 0 where a row was done."""
    steps: jax.Array
    """Rows of made_NB that are filled."""
    rules: Rules


class Beginning(NamedTuple):
    """Rows as they are before a pass: what `start` makes a state of."""

    prompt_BP: np.ndarray | jax.Array
    """Tokens to read before the last one of each row."""
    length_B: np.ndarray | jax.Array
    """How many of them a row has."""
    tok_B: np.ndarray | jax.Array
    """Last token of each row."""
    count_B: np.ndarray | jax.Array
    """New tokens that were drawn before."""
    seen_BV: np.ndarray | jax.Array
    tail_BS: np.ndarray | jax.Array
    key: jax.Array
    place_B: np.ndarray | jax.Array
    """Row b's randomness is that of key and place_B[b]."""


def start(
    model: LanguageModel[Any], params: Params, beginning: Beginning, rules: Rules, *, room: int, capacity: int
) -> State:
    """Read each row's prompt in one pass.

    The logits of the pass are not used, and therefore not computed: the last token is left to `run`. `room` is the
    number of tokens that the cache has place for, `capacity` the number that can be drawn.
    """
    prompt_BP, length_B, tok_B, count_B, seen_BV, tail_BS, key, place_B = map(jnp.asarray, beginning)
    B = tok_B.shape[0]
    cache = model.init_cache(params, B, room)
    if prompt_BP.shape[1]:
        _, cache = model.extend(params, cache, prompt_BP, length_B)
    return State(
        cache=cache,
        key_B=jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, place_B),
        tok_B=tok_B,
        count_B=count_B,
        done_B=count_B >= rules.limit_B,
        seen_BV=seen_BV,
        tail_BS=tail_BS,
        made_NB=jnp.zeros((capacity, B), jnp.int32),
        steps=jnp.int32(0),
        rules=jax.tree.map(jnp.asarray, rules),
    )


def run(model: LanguageModel[Any], params: Params, state: State, most: jax.Array) -> State:
    """Draw at most `most` tokens for each row that is not done. The state given is used up."""
    rules, settings = state.rules, state.rules.settings
    until = jnp.minimum(state.steps + most, state.made_NB.shape[0])

    def unfinished(state: State) -> jax.Array:
        return (state.steps < until) & ~jnp.all(state.done_B)

    def one_token(state: State) -> State:
        active_B = ~state.done_B
        tok_B1 = state.tok_B[:, None]
        logits_B1V, cache = model.extend(params, state.cache, tok_B1, active_B.astype(jnp.int32))
        seen_BV = sampling.with_seen(state.seen_BV, state.tok_B, jnp.asarray(rules.eos))
        z_BV = sampling.filtered(logits_B1V[:, 0], settings, jnp.asarray(rules.allowed_V), seen_BV)
        drawn_B = sampling.draw(sampling.uniform(state.key_B, state.count_B, settings), z_BV)
        tok_B = jnp.where(active_B, drawn_B, state.tok_B)
        count_B = state.count_B + active_B.astype(jnp.int32)
        tail_BS = state.tail_BS
        if rules.stop_S.shape[0]:
            tail_BS = jnp.where(active_B[:, None], jnp.concatenate([tail_BS[:, 1:], tok_B[:, None]], axis=1), tail_BS)
        done_B = state.done_B | (count_B >= rules.limit_B) | ends(rules, tok_B, tail_BS)
        made_NB = jax.lax.dynamic_update_index_in_dim(
            state.made_NB, jnp.where(active_B, drawn_B, 0), state.steps, axis=0
        )
        return State(cache, state.key_B, tok_B, count_B, done_B, seen_BV, tail_BS, made_NB, state.steps + 1, rules)

    return jax.lax.while_loop(unfinished, one_token, state)


def ends(rules: Rules, tok_B: jax.Array, tail_BS: jax.Array) -> jax.Array:
    """True for rows whose new tokens, of which tail_BS are the last and tok_B the very last, end the text."""
    done_B = tok_B == rules.end
    if rules.stop_S.shape[0]:
        stop_1S = rules.stop_S[None]
        done_B |= jnp.all((tail_BS == stop_1S) | (stop_1S == ANY), axis=1)
    return done_B


def whole(
    model: LanguageModel[Any], params: Params, beginning: Beginning, rules: Rules, *, room: int, capacity: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`start` and one `run` to the end as one program: done_B, count_B and made_NB.

    A call of a program takes 0.2 ms with its arguments, as long as a bigram takes to write a name.
    """
    state = start(model, params, beginning, rules, room=room, capacity=capacity)
    state = run(model, params, state, jnp.int32(capacity))
    return state.done_B, state.count_B, state.made_NB


class Programs(NamedTuple):
    """The three functions above, compiled."""

    start: Callable[..., State]
    run: Callable[..., State]
    whole: Callable[..., tuple[jax.Array, jax.Array, jax.Array]]


@cache
def programs(**options: int | bool) -> Programs:
    """The programs with the given options of the compiler."""
    sizes = ("model", "room", "capacity")
    return Programs(
        jax.jit(start, static_argnames=sizes, compiler_options=options),
        jax.jit(run, static_argnames="model", donate_argnames="state", compiler_options=options),
        jax.jit(whole, static_argnames=sizes, compiler_options=options),
    )


def decode(
    model: LanguageModel[Any],
    params: Params,
    rows: Sequence[Sequence[int]],
    *,
    settings: RowSettings,
    key: jax.Array,
    place_B: np.ndarray,
    limit_B: np.ndarray,
    allowed_V: np.ndarray,
    eos: int = EOS,
    end: int | None = None,
    stop: Sequence[int] = (),
    goes_on: bool = False,
    every: int | None = None,
) -> Iterator[list[list[int]]]:
    """Continue each row of tokens, at least one, by at most limit_B[b] more: yields each row's new tokens since before.

    A row ends after the token `end` or once its new tokens end with `stop`; both are among the tokens that are given.
    `every` is the number of tokens between two yields; None: one yield for all. A model with max_length positions sees
    the last of a row's tokens. Where the positions end the row ends; with goes_on, it goes on from the last half of
    what it sees. A row's tokens depend on the key, place_B[b], its own tokens, settings and limit, whatever is beside.
    """
    most = model.max_length
    widest = int(limit_B.max())
    capacity = power_of_2(widest if most is None else min(widest, most))
    room = power_of_2(max(map(len, rows)) - 1 + widest)
    room = room if most is None else min(room, most)
    stop_S = np.full(power_of_2(len(stop)) if stop else 0, ANY, np.int32)
    stop_S[len(stop_S) - len(stop) :] = stop
    made: list[list[int]] = [[] for _ in rows]
    seen = [list(row) if most is None else list(row[-most:]) for row in rows]
    ended_B = limit_B < 1
    count_B = np.zeros(len(rows), np.int32)
    while True:
        pass_B = limit_B
        if most is not None:
            pass_B = np.minimum(limit_B, count_B + most + 1 - np.array([len(row) for row in seen]))
        pass_B = np.where(ended_B, count_B, pass_B).astype(np.int32)
        rules = Rules(
            settings,
            pass_B,
            allowed_V,
            np.array(NEVER if end is None else end, np.int32),
            stop_S,
            np.array(eos, np.int32),
        )
        before_B = np.array([len(row) - 1 for row in seen], np.int32)
        width = int(before_B.max())
        beginning = Beginning(
            padded([row[:-1] for row in seen], min(power_of_2(width), room) if width else 0),
            before_B,
            np.array([row[-1] for row in seen], np.int32),
            count_B,
            seen_tokens(rows, made, settings, model.vocab_size, eos),
            tails(made, len(stop_S)),
            key,
            place_B,
        )
        for new in _one_pass(model, params, beginning, rules, room, capacity, every):
            for row, tokens in zip(made, new, strict=True):
                row += tokens
            yield new
        count_B = np.array([len(new) for new in made], np.int32)
        ended_B = np.array([has_ended(row, end, stop) for row in made]) | (count_B >= limit_B)
        if most is None or not goes_on or ended_B.all():
            return
        seen = [[*row, *new][-max(1, most // 2) :] for row, new in zip(rows, made, strict=True)]


def _one_pass(
    model: LanguageModel[Any],
    params: Params,
    beginning: Beginning,
    rules: Rules,
    room: int,
    capacity: int,
    every: int | None,
) -> Iterator[list[list[int]]]:
    """Each row's new tokens since before, until all rows are done."""
    count_B, read = np.asarray(beginning.count_B), 0
    compiled = programs(**compilation.sampling_options(params, len(count_B)))
    done_B = np.asarray(rules.limit_B) <= count_B
    if not done_B.all() and every is not None:
        state = compiled.start(model, params, beginning, rules, room=room, capacity=capacity)
        jax.block_until_ready(state)  # several CPU devices deadlock on queued collectives
    while not done_B.all():
        if every is None:
            result = compiled.whole(model, params, beginning, rules, room=room, capacity=capacity)
        else:
            state = compiled.run(model, params, state, np.array(every, np.int32))
            result = state.done_B, state.count_B, state.made_NB
        done_B, after_B, made_NB = jax.device_get(result)
        new_B = (after_B - count_B).tolist()
        yield [column[read : read + new] for column, new in zip(made_NB.T.tolist(), new_B, strict=True)]
        count_B, read = after_B, read + max(new_B)


def has_ended(made: list[int], end: int | None, stop: Sequence[int]) -> bool:
    """True if a row's new tokens end with what ends a text."""
    return bool(made) and (made[-1] == end or (len(stop) > 0 and made[-len(stop) :] == list(stop)))


def padded(rows: Sequence[Sequence[int]], width: int) -> np.ndarray:
    """Rows of tokens filled up to a width, (B, width)."""
    tok_BP = np.full((len(rows), width), EOS, np.int32)
    for tok_P, row in zip(tok_BP, rows, strict=True):
        tok_P[: len(row)] = row
    return tok_BP


def tails(made: list[list[int]], size: int) -> np.ndarray:
    """The last `size` new tokens of each row, filled up on the left."""
    return np.array([([NOTHING] * size + row)[len(row) :] for row in made], np.int32).reshape(len(made), size)


def seen_tokens(
    rows: Sequence[Sequence[int]], made: list[list[int]], settings: RowSettings, vocab_size: int, eos: int
) -> np.ndarray:
    """seen_BV of the tokens so far, for rows with a repetition penalty."""
    seen_BV = np.zeros((len(rows), vocab_size), bool)
    for b in np.flatnonzero(np.asarray(settings.repetition_penalty_B) != 1).tolist():
        seen_BV[b, [*rows[b], *made[b]]] = True
    seen_BV[:, eos] = False
    return seen_BV


def power_of_2(number: int) -> int:
    """The least power of 2 that is as large: few sizes are compiled."""
    return 1 << max(0, number - 1).bit_length()
