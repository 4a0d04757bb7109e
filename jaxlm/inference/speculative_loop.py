"""The compiled loop of speculative decoding: a draft proposes tokens, the model reads them in one pass and judges them.

What is drawn from which distribution is told by speculative.py, which runs it. Settings, limits and ends are arrays.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.inference import engine, sampling
from jaxlm.inference.engine import Rules
from jaxlm.inference.sampling import draw_weighted, probabilities
from jaxlm.models.base import LanguageModel, Params, rolled_back
from jaxlm.ops import windows
from jaxlm.ops.ragged import after_length, places, write_rows

PROPOSE, ACCEPT, REPLACE = range(3)
"""What each of the three random numbers of a token's place is for."""


class Tally(NamedTuple):
    """Counts of each row."""

    passes_B: Any
    """Passes of the model."""
    proposed_B: Any
    """Tokens that the draft proposed."""
    accepted_B: Any
    """Those of them that stayed."""
    made_B: Any
    """New tokens."""

    def __add__(self, other: Any) -> "Tally":
        """The sum, row by row."""
        return Tally(*(one + two for one, two in zip(self, other, strict=True)))

    def rows(self) -> list["Tally"]:
        """The counts of each row alone."""
        return [Tally(*column) for column in np.array(self).T[:, :, None]]

    @property
    def acceptance(self) -> float | None:
        """The share of the proposed tokens of all rows that stayed; None where none was proposed."""
        proposed = int(np.sum(self.proposed_B))
        return int(np.sum(self.accepted_B)) / proposed if proposed else None

    @property
    def tokens_per_pass(self) -> float | None:
        """New tokens for a pass over a row, 1 without a draft; None where there was no pass."""
        passes = int(np.sum(self.passes_B))
        return int(np.sum(self.made_B)) / passes if passes else None


class Reach(NamedTuple):
    """Numbers of new tokens with which a row's positions are used up: no further token is read."""

    model_B: np.ndarray | jax.Array
    draft_B: np.ndarray | jax.Array


class Beginning(NamedTuple):
    """Rows as they are before a pass: what `start` makes a state of. See `engine.Beginning`."""

    rows: engine.Beginning
    prompt_BP: np.ndarray | jax.Array
    """Tokens that the draft reads before the last one of each row."""
    length_B: np.ndarray | jax.Array
    reach: Reach


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Rows that are being continued, between two calls of `run`. See `engine.State`."""

    cache: Any
    """The model's, of all tokens but the last of each row."""
    draft_cache: Any
    """The draft's, of the same tokens, or of the last of them."""
    key_B: jax.Array
    tok_B: jax.Array
    count_B: jax.Array
    done_B: jax.Array
    seen_BV: jax.Array
    tail_BS: jax.Array
    made_BN: jax.Array
    """The first made_B[b] of row b are its tokens since the start."""
    tally: Tally
    rules: Rules
    reach: Reach


def start(
    model: LanguageModel[Any],
    draft: LanguageModel[Any],
    params: Params,
    draft_params: Params,
    beginning: Beginning,
    rules: Rules,
    *,
    rooms: tuple[int, int],
    capacity: int,
) -> State:
    """Read each row's prompt in one pass of the model and one of the draft, whose caches have `rooms` tokens."""
    prompt_BP, length_B, tok_B, count_B, seen_BV, tail_BS, key, place_B = map(jnp.asarray, beginning.rows)
    own_BP, own_B = jnp.asarray(beginning.prompt_BP), jnp.asarray(beginning.length_B)
    B, zero_B = tok_B.shape[0], jnp.zeros_like(count_B)
    caches = model.init_cache(params, B, rooms[0]), draft.init_cache(draft_params, B, rooms[1])
    return State(
        cache=_read(model, params, caches[0], prompt_BP, length_B),
        draft_cache=_read(draft, draft_params, caches[1], own_BP, own_B),
        key_B=jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, place_B),
        tok_B=tok_B,
        count_B=count_B,
        done_B=count_B >= rules.limit_B,
        seen_BV=seen_BV,
        tail_BS=tail_BS,
        made_BN=jnp.zeros((B, capacity), jnp.int32),
        tally=Tally(zero_B, zero_B, zero_B, zero_B),
        rules=jax.tree.map(jnp.asarray, rules),
        reach=jax.tree.map(jnp.asarray, beginning.reach),
    )


def run(
    model: LanguageModel[Any],
    draft: LanguageModel[Any],
    params: Params,
    draft_params: Params,
    state: State,
    most: jax.Array,
    *,
    tokens: int,
) -> State:
    """Propose and judge `tokens` tokens of each row that is not done, at most `most` times. The state is used up."""

    def unfinished(carry: tuple[State, jax.Array]) -> jax.Array:
        state, rounds = carry
        return (rounds < most) & ~jnp.all(state.done_B)

    def one_round(carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
        state, rounds = carry
        return _round(model, draft, params, draft_params, state, tokens), rounds + 1

    return jax.lax.while_loop(unfinished, one_round, (state, jnp.int32(0)))[0]


def _read(model: LanguageModel[Any], params: Params, cache: Any, prompt_BP: jax.Array, length_B: jax.Array) -> Any:
    return model.extend(params, cache, prompt_BP, length_B)[1] if prompt_BP.shape[1] else cache


def _round(
    model: LanguageModel[Any],
    draft: LanguageModel[Any],
    params: Params,
    draft_params: Params,
    state: State,
    tokens: int,
) -> State:
    """The state with one to tokens + 1 more tokens of each row that is not done.

    T = tokens + 1 is the number of tokens that the model reads: a row's last one and those proposed.
    """
    rules, T, V = state.rules, tokens + 1, model.vocab_size
    active_B = ~state.done_B
    t_1T = jnp.arange(T)[None]
    readable_B, drafted_B = (jnp.where(active_B, jnp.clip(reach_B - state.count_B, 0, T), 0) for reach_B in state.reach)
    proposed_B = jnp.minimum(jnp.minimum(drafted_B, tokens), jnp.maximum(readable_B - 1, 0))
    u_BT3 = _uniform(state.key_B, state.count_B, T)

    def propose(carry: Any, step: tuple[jax.Array, jax.Array]) -> tuple[Any, Any]:
        cache, tok_B, seen_BV = carry
        t, u_B = step
        seen_BV = sampling.with_seen(seen_BV, tok_B, jnp.asarray(rules.eos))
        reads_B = (t < drafted_B).astype(jnp.int32)
        logits_B1V, cache = draft.extend(draft_params, cache, tok_B[:, None], reads_B)
        q_BV = _probabilities(_fitted(logits_B1V[:, 0], V), rules, seen_BV)
        return (cache, draw_weighted(u_B, q_BV), seen_BV), (tok_B, q_BV, seen_BV)

    steps = jnp.arange(tokens), u_BT3[:, :tokens, PROPOSE].T
    (draft_cache, last_B, seen_BV), each = jax.lax.scan(propose, (state.draft_cache, state.tok_B, state.seen_BV), steps)
    tok_TB, q_TBV, seen_TBV = each
    reads_B = (tokens < drafted_B).astype(jnp.int32)
    _, draft_cache = draft.extend(draft_params, draft_cache, last_B[:, None], reads_B)
    tok_BT = jnp.concatenate([tok_TB, last_B[None]]).T
    seen_BV = sampling.with_seen(seen_BV, last_B, jnp.asarray(rules.eos))
    seen_TBV = jnp.concatenate([seen_TBV, seen_BV[None]])

    length_B = jnp.where(active_B, proposed_B + 1, 0)
    logits_BTV, cache = model.extend(params, state.cache, tok_BT, length_B)
    p_BTV = jax.vmap(lambda logits_BV, seen_BV: _probabilities(logits_BV, rules, seen_BV), in_axes=(1, 0), out_axes=1)(
        logits_BTV, seen_TBV
    )
    accepted_B, other_B = judged(tok_BT[:, 1:], proposed_B, jnp.swapaxes(q_TBV, 0, 1), p_BTV, u_BT3)
    new_BT = jnp.where(t_1T < accepted_B[:, None], jnp.roll(tok_BT, -1, axis=1), other_B[:, None])

    S = rules.stop_S.shape[0]
    tail_BTS = windows(jnp.concatenate([state.tail_BS, new_BT], axis=1), S)[:, S:]
    ends_BT = jax.vmap(lambda tok_B, tail_BS: engine.ends(rules, tok_B, tail_BS), in_axes=1, out_axes=1)(
        new_BT, tail_BTS
    )
    ends_BT |= state.count_B[:, None] + t_1T + 1 >= rules.limit_B[:, None]
    ends_BT &= t_1T <= accepted_B[:, None]
    ended_B = jnp.any(ends_BT, axis=1)
    made_B = jnp.where(ended_B, jnp.argmax(ends_BT, axis=1) + 1, accepted_B + 1)
    made_B = jnp.where(active_B, made_B, 0).astype(jnp.int32)
    count_B = state.count_B + made_B
    place_BT = places(state.tally.made_B, made_B, T, state.made_BN.shape[1])
    accepted_B = jnp.minimum(accepted_B, made_B)
    kept_B = jnp.minimum(made_B, drafted_B)
    return State(
        cache=rolled_back(model, params, state.cache, cache, tok_BT, made_B),
        draft_cache=rolled_back(draft, draft_params, state.draft_cache, draft_cache, tok_BT, kept_B),
        key_B=state.key_B,
        tok_B=after_length(state.tok_B, new_BT.T, made_B),
        count_B=count_B,
        done_B=state.done_B | ended_B | (count_B >= jnp.minimum(*state.reach)),
        seen_BV=after_length(state.seen_BV, seen_TBV, made_B),
        tail_BS=after_length(state.tail_BS, jnp.swapaxes(tail_BTS, 0, 1), made_B),
        made_BN=write_rows(state.made_BN, new_BT, place_BT),
        tally=state.tally + Tally(active_B.astype(jnp.int32), proposed_B, accepted_B, made_B),
        rules=rules,
        reach=state.reach,
    )


def judged(
    tok_BG: jax.Array, proposed_B: jax.Array, q_BGV: jax.Array, p_BTV: jax.Array, u_BT3: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """How many of each row's first proposed_B[b] tokens stay, drawn from q, and the token after those, by p.

    p has one place more than q, T = G + 1: p[b, g] and q[b, g] are the distributions of token g. u are uniform on
    [0, 1), of which those numbered ACCEPT and REPLACE are used. Returns accepted_B and tok_B.
    """
    G = tok_BG.shape[1]
    p_BG, q_BG = (jnp.take_along_axis(x_BGV, tok_BG[:, :, None], axis=2)[:, :, 0] for x_BGV in (p_BTV[:, :G], q_BGV))
    stays_BG = (u_BT3[:, :G, ACCEPT] * q_BG < p_BG) & (jnp.arange(G)[None] < proposed_B[:, None])
    accepted_B = jnp.sum(jnp.cumprod(stays_BG, axis=1), axis=1)
    at_B1 = accepted_B[:, None]
    p_BV = jnp.take_along_axis(p_BTV, at_B1[:, :, None], axis=1)[:, 0]
    q_BV = jnp.take_along_axis(q_BGV, jnp.minimum(at_B1, G - 1)[:, :, None], axis=1)[:, 0]
    left_BV = jnp.maximum(p_BV - q_BV, 0.0)
    rejected_B1 = (at_B1 < proposed_B[:, None]) & jnp.any(left_BV > 0, axis=1, keepdims=True)
    u_B = jnp.take_along_axis(u_BT3[:, :, REPLACE], at_B1, axis=1)[:, 0]
    return accepted_B, draw_weighted(u_B, jnp.where(rejected_B1, left_BV, p_BV))


def _uniform(key_B: jax.Array, count_B: jax.Array, T: int) -> jax.Array:
    """Three uniform numbers for each of the next T places of a row, u_BT3.

    Numbers are those of a place in the text. What a place was proposed in vain before is drawn by the same ones again,
    which does no harm: nothing that stayed depends on them.
    """

    def one(key: jax.Array, count: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(key, count), (3,))

    count_BT = count_B[:, None] + jnp.arange(T)[None]
    return jax.vmap(jax.vmap(one, in_axes=(None, 0)))(key_B, count_BT)


def _probabilities(logits_BV: jax.Array, rules: Rules, seen_BV: jax.Array) -> jax.Array:
    """p_BV of the next token by the rows' settings."""
    z_BV = sampling.filtered(logits_BV, rules.settings, jnp.asarray(rules.allowed_V), seen_BV)
    return probabilities(z_BV, rules.settings)


def _fitted(logits_BV: jax.Array, V: int) -> jax.Array:
    """Logits of the draft for the model's tokens: no text has those that one of them lacks."""
    missing = V - logits_BV.shape[1]
    return jnp.pad(logits_BV[:, :V], ((0, 0), (0, max(missing, 0))), constant_values=-jnp.inf)
