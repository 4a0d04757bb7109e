"""Speculative decoding: a draft model proposes tokens one by one, the model reads them all in one pass and judges them.

With p the model's distribution after all filters and q the draft's, a proposed token x stays with probability
min(1, p(x) / q(x)). The first that does not is replaced by a draw from max(p - q, 0), normalised; where all stay, a
token from p follows them. Each token is then distributed by p, whatever q is (Leviathan et al. 2023, algorithm 1 and
appendix A.1; Chen et al. 2023, theorem 1). `decode` does what `engine.decode` does, with other draws.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlm.config import check
from jaxlm.config.run import DRAFT_TOKENS, MOST_DRAFT_TOKENS
from jaxlm.devices import compilation
from jaxlm.inference import engine, speculative_loop
from jaxlm.inference.engine import Rules, padded, power_of_2
from jaxlm.inference.sampling import RowSettings
from jaxlm.inference.speculative_loop import Beginning, Reach, State, Tally
from jaxlm.models.base import LanguageModel, Params
from jaxlm.tokenizers import EOS


class Draft(NamedTuple):
    """A model that proposes tokens, of the same vocabulary."""

    model: LanguageModel[Any]
    params: Params
    tokens: int = DRAFT_TOKENS
    """Tokens that are proposed at once."""


class Programs(NamedTuple):
    """`start` and `run`, compiled."""

    start: Callable[..., State]
    run: Callable[..., State]


@cache
def programs(**options: int | bool) -> Programs:
    """The programs with the given options of the compiler."""
    return Programs(
        jax.jit(
            speculative_loop.start, static_argnames=("model", "draft", "rooms", "capacity"), compiler_options=options
        ),
        jax.jit(
            speculative_loop.run,
            static_argnames=("model", "draft", "tokens"),
            donate_argnames="state",
            compiler_options=options,
        ),
    )


def decode(
    model: LanguageModel[Any],
    params: Params,
    rows: Sequence[Sequence[int]],
    *,
    draft: Draft,
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
    report: Callable[[Tally], None] | None = None,
) -> Iterator[list[list[int]]]:
    """Continue rows as `engine.decode` does, from the same distribution, with the draft's proposals.

    A yield has at most `every` new tokens of a row, or those of one pass where they are more. A draft that runs out of
    positions goes on from the last half of what it sees, whatever the model does. `report` gets the counts at the end.
    Raises UserError for a number of draft tokens out of range.
    """
    check.between("draft_tokens", draft.tokens, 1, MOST_DRAFT_TOKENS)
    most, widest = model.max_length, int(limit_B.max())
    longest = max(map(len, rows)) + widest + draft.tokens - 1
    rooms = _room(longest, most), _room(longest, draft.model.max_length)
    capacity = power_of_2(widest if most is None else min(widest, most))
    stop_S = np.full(power_of_2(len(stop)) if stop else 0, engine.ANY, np.int32)
    stop_S[len(stop_S) - len(stop) :] = stop
    compiled = programs(**compilation.sampling_options((params, draft.params), len(rows)))
    models = model, draft.model, params, draft.params
    rounds = np.array(np.iinfo(np.int32).max if every is None else max(1, every // (draft.tokens + 1)), np.int32)
    made: list[list[int]] = [[] for _ in rows]
    seen = [list(row) if most is None else list(row[-most:]) for row in rows]
    drafts = [_with_room(list(row), draft) for row in rows]
    count_B, ended_B = np.zeros(len(rows), np.int32), limit_B < 1
    total = Tally(*np.zeros((4, len(rows)), np.int32))
    while not ended_B.all():
        rules = Rules(
            settings,
            np.where(ended_B, count_B, limit_B).astype(np.int32),
            allowed_V,
            np.array(engine.NEVER if end is None else end, np.int32),
            stop_S,
            np.array(eos, np.int32),
        )
        (prompt_BP, length_B), own = (_prompt(*pair) for pair in zip((seen, drafts), rooms, strict=True))
        last_B = np.array([row[-1] for row in seen], np.int32)
        seen_BV = engine.seen_tokens(rows, made, settings, model.vocab_size, eos)
        tail_BS = engine.tails(made, len(stop_S))
        read = engine.Beginning(prompt_BP, length_B, last_B, count_B, seen_BV, tail_BS, key, place_B)
        reach = Reach(_reach(count_B, seen, most), _reach(count_B, drafts, draft.model.max_length))
        state = compiled.start(*models, Beginning(read, *own, reach), rules, rooms=rooms, capacity=capacity)
        jax.block_until_ready(state)  # several CPU devices deadlock on queued collectives
        done, given_B = False, np.zeros(len(rows), np.int32)
        while not done:
            state = compiled.run(*models, state, rounds, tokens=draft.tokens)
            done_B, tally, made_BN = jax.device_get((state.done_B, state.tally, state.made_BN))
            new = [row[a:b].tolist() for row, a, b in zip(made_BN, given_B, tally.made_B, strict=True)]
            for contexts in (made, seen, drafts):
                for context, tokens in zip(contexts, new, strict=True):
                    context += tokens
            done, given_B = done_B.all(), tally.made_B
            yield new
        total, count_B = total + tally, count_B + given_B
        used_up_B = count_B >= reach.model_B
        ended_B = np.array([engine.has_ended(row, end, stop) for row in made]) | (count_B >= limit_B)
        if not goes_on:
            ended_B |= used_up_B
        for b in np.flatnonzero(used_up_B & ~ended_B).tolist():
            seen[b] = [*rows[b], *made[b]][-max(1, (most or 0) // 2) :]
        drafts = [_with_room(context, draft) for context in drafts]
    if report is not None:
        report(total)


def _room(tokens: int, most: int | None) -> int:
    """Tokens that a cache has place for."""
    return power_of_2(tokens) if most is None else min(power_of_2(tokens), most)


def _reach(count_B: np.ndarray, contexts: Sequence[Sequence[int]], most: int | None) -> np.ndarray:
    """The number of new tokens with which each row's positions are used up, of which `most` are there."""
    if most is None:
        return np.full(len(contexts), np.iinfo(np.int32).max, np.int32)
    return (count_B + most + 1 - np.array([len(context) for context in contexts])).astype(np.int32)


def _prompt(contexts: Sequence[Sequence[int]], room: int) -> tuple[np.ndarray, np.ndarray]:
    """All tokens but the last of each row, prompt_BP and length_B."""
    length_B = np.array([len(context) - 1 for context in contexts], np.int32)
    width = int(length_B.max())
    return padded([context[:-1] for context in contexts], min(power_of_2(width), room) if width else 0), length_B


def _with_room(context: list[int], draft: Draft) -> list[int]:
    """What the draft sees of a row: all, or the last half of its positions where it could not go on from all."""
    most = draft.model.max_length
    if most is None or len(context) + draft.tokens <= most:
        return context
    return context[-max(1, most // 2) :]
