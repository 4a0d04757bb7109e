"""Speculative decoding: the distribution of plain decoding, its greedy text, its ends, and rows of their own."""

import dataclasses
import functools
import itertools
import math
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.config import GptConfig
from jaxlm.data.corpus import from_lines
from jaxlm.errors import UserError
from jaxlm.inference import engine, speculative
from jaxlm.inference.generate import generate, stream
from jaxlm.inference.sampling import Strategy, filtered
from jaxlm.inference.speculative import Draft
from jaxlm.inference.speculative_loop import Tally, judged
from tests.conftest import NAMES, opened
from tests.models.test_models import V, apply, model_and_params

KEY = jax.random.key(3)
WIDE = Strategy()
FILTERED = Strategy(0.8, top_k=5, top_p=0.95, min_p=0.05, repetition_penalty=1.5)
END = 2
PAIRS = [
    ("gpt", "gpt-llama"),
    ("gpt", "kneser-ney-4"),
    ("kneser-ney-4", "gpt"),
    ("lstm", "gru"),
    ("wavenet-gated", "bow"),
    ("gpt", "gpt-short"),
    ("counts-3", "mlp-3-normal"),
]
"""Models and drafts. gpt-short has half as many positions as gpt."""


@functools.cache
def made(name: str) -> tuple[Any, Any]:
    """A model with parameters that tell tokens apart by more than initial ones do."""
    if name.endswith("-noisy"):
        model, params = made(name.removesuffix("-noisy"))
        rng = np.random.default_rng(0)
        return model, jax.tree.map(lambda leaf: leaf * jnp.asarray(rng.normal(1, 0.15, leaf.shape), leaf.dtype), params)
    if name == "gpt-short":
        model = GptConfig(context=6, n_layers=1, n_heads=2, d_model=16, vocab_size=V).build()
        params = jax.jit(model.init)(jax.random.key(5), jnp.zeros((1, 1), jnp.int32))
    else:
        model, params = model_and_params(name)
    return model, sharper(params) if name.startswith(("gpt", "lstm", "gru")) else params


def sharper(params: Any) -> Any:
    """Parameters of a network whose logits differ by about 1."""
    return jax.tree.map(lambda leaf: 3 * leaf, params)


def drawn(
    name: str, draft: str | None, rows: list[list[int]], *, most: int = 12, tokens: int = 4, **options: Any
) -> tuple[list[list[int]], Tally]:
    """New tokens of each row, drawn with a draft or without, and the counts (of nothing without)."""
    model, params = made(name)
    settings: dict[str, Any] = {"strategy": WIDE, "key": KEY, "places": range(len(rows))} | options
    settings["settings"] = settings.pop("strategy").rows(len(rows))
    settings["place_B"] = np.asarray(settings.pop("places"), np.int32)
    settings["limit_B"] = np.full(len(rows), most, np.int32)
    decode, tallies = engine.decode, [Tally(*np.zeros((4, 0)))]
    if draft is not None:
        own: Any = Draft(*made(draft), tokens)
        decode = functools.partial(speculative.decode, draft=own, report=tallies.append)
    new: list[list[int]] = [[] for _ in rows]
    for part in decode(model, params, rows, allowed_V=np.ones(V, bool), **settings):
        for row, more in zip(new, part, strict=True):
            row += more
    return new, tallies[-1]


def exactly(name: str, prompt: list[int], length: int, strategy: Strategy) -> dict[tuple[int, ...], float]:
    """The probability of each continuation of a length, or of each that END ends before, by whole passes."""
    model, params = made(name)
    inner = list(itertools.product(range(V), repeat=length - 1))
    tok_BT = np.array([[*prompt, *tokens] for tokens in inner])
    logits_BTV = apply(model, params, tok_BT)[:, len(prompt) - 1 :]
    found: dict[tuple[int, ...], float] = {}
    p_B = np.ones(len(inner))
    for t in range(length):
        seen_BV = np.array([np.isin(np.arange(V), [*prompt, *tokens[:t]]) for tokens in inner])
        seen_BV[:, 0] = False
        z_BV = filtered(logits_BTV[:, t], strategy.rows(len(inner)), None, jnp.asarray(seen_BV))
        p_BV = p_B[:, None] * np.asarray(jax.nn.softmax(z_BV), np.float64)
        for b, tokens in enumerate(inner):
            if END not in tokens[:t]:
                found |= {(*tokens[:t], v): p_BV[b, v] for v in (range(V) if t == length - 1 else (END,))}
        if t < length - 1:
            p_B = p_BV[np.arange(len(inner)), [tokens[t] for tokens in inner]]
    assert sum(found.values()) == pytest.approx(1)
    return found


def excess(count: Counter[tuple[int, ...]], p: dict[tuple[int, ...], float]) -> float:
    """How many standard deviations Pearson's statistic is above its mean; outcomes expected less than 5 times are one.

    The statistic has mean df and variance 2 df.
    """
    draws = count.total()
    assert all(p.get(outcome, 0) > 0 for outcome in count)
    often = {outcome: draws * share for outcome, share in p.items() if draws * share > 5}
    pairs = [(count[outcome], expected) for outcome, expected in often.items()]
    rest = draws - sum(often.values())
    if rest > 5:
        pairs.append((draws - sum(count[outcome] for outcome in often), rest))
    statistic, df = sum((got - expected) ** 2 / expected for got, expected in pairs), len(pairs) - 1
    return (statistic - df) / math.sqrt(2 * df)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [WIDE, FILTERED], ids=["wide", "filtered"])
@pytest.mark.parametrize(("name", "draft"), PAIRS[:5])
def test_continuations_have_the_distribution_of_plain_decoding(name, draft, strategy):
    """All of up to three tokens, ends included, of a draft that proposes two: passes end within them and behind them.

    The draft's own continuations are distributed otherwise: the test is not blind.
    """
    prompt, length, draws = [0, 4], 3, 20_000
    rows, tally = drawn(name, draft, [prompt] * draws, most=length, tokens=2, strategy=strategy, end=END)
    count = Counter(map(tuple, rows))
    assert excess(count, exactly(name, prompt, length, strategy)) < 4
    assert 0.1 < (tally.acceptance or 0) < 0.95
    if strategy == WIDE:
        other, _ = drawn(draft, None, [prompt] * draws, most=length, end=END)
        assert excess(Counter(map(tuple, other)), exactly(name, prompt, length, strategy)) > 20


def test_a_judged_token_is_distributed_as_the_model_says():
    """One proposal: it stays or is replaced; the first token is p's whatever q is, and the second one p's too."""
    draws, rng = 40_000, np.random.default_rng(0)
    p_TV = rng.dirichlet(np.ones(V), 2).astype(np.float32)
    for q_V in (rng.dirichlet(np.ones(V)), np.eye(V)[3], p_TV[0], np.full(V, 1 / V)):
        tok_B1 = rng.choice(V, (draws, 1), p=q_V / q_V.sum())
        q_B1V = jnp.broadcast_to(jnp.asarray(q_V, jnp.float32), (draws, 1, V))
        u_BT3 = jnp.asarray(rng.random((draws, 2, 3)), jnp.float32)
        accepted_B, next_B = judged(
            jnp.asarray(tok_B1), jnp.ones(draws, jnp.int32), q_B1V, jnp.broadcast_to(p_TV, (draws, 2, V)), u_BT3
        )
        stays = np.asarray(accepted_B) == 1
        assert stays.mean() == pytest.approx(np.minimum(p_TV[0], q_V).sum(), abs=0.01)
        first = np.where(stays, tok_B1[:, 0], next_B)
        for tokens, p_V in ((first, p_TV[0]), (np.asarray(next_B)[stays], p_TV[1])):
            count: Counter[tuple[int, ...]] = Counter((int(token),) for token in tokens)
            assert excess(count, {(v,): float(p_V[v]) for v in range(V)}) < 4


def test_what_was_not_proposed_is_not_accepted():
    p_BTV = jnp.full((2, 3, V), 1 / V)
    accepted_B, _ = judged(
        jnp.zeros((2, 2), jnp.int32), jnp.array([0, 1]), p_BTV[:, :2], p_BTV, jnp.zeros((2, 3, 3), jnp.float32)
    )
    assert accepted_B.tolist() == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize(("name", "draft"), PAIRS)
def test_greedy_text_is_that_of_plain_decoding(name, draft, tokens):
    """64 tokens of a GPT with 12 positions: it goes on from the last half of what it sees several times."""
    rows = [[1, 2, 3], [4], [5, 5, 5, 5, 5, 5, 6], list(range(7)) * 3]
    options: dict[str, Any] = {"most": 64, "strategy": Strategy(temperature=0), "goes_on": True}
    plain, _ = drawn(name, None, rows, **options)
    assert {len(row) for row in plain} == {64}
    got, tally = drawn(name, draft, rows, tokens=tokens, **options)
    assert got == plain
    assert tally.made_B.tolist() == [64] * 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "draft"), [("gpt", "gpt-noisy"), ("kneser-ney-4", "counts-3"), ("lstm", "lstm-noisy")]
)
def test_the_draft_proposes_what_follows_the_tokens_that_stayed(name, draft):
    """Greedy proposals and the number of those that stay are those of whole passes over the text so far."""
    most, tokens = 7, 2

    def greedy(name: str, text: list[int]) -> int:
        padded = [*text, *[0] * (12 - len(text))]
        return int(np.argmax(apply(*made(name), np.array([padded]))[0, len(text) - 1]))

    prompts = [[token, 4] for token in range(V)]
    rows, tally = drawn(name, draft, prompts, most=most, tokens=tokens, strategy=Strategy(temperature=0))
    for b, prompt in enumerate(prompts):
        text, passes, stayed, end = list(prompt), 0, 0, len(prompt) + most
        while len(text) < end:
            proposed = list(text)
            for _ in range(tokens):
                proposed.append(greedy(draft, proposed))
            passes += 1
            while len(text) < min(len(proposed), end) and greedy(name, text) == proposed[len(text)]:
                text.append(proposed[len(text)])
                stayed += 1
            text.append(greedy(name, text))
        assert rows[b] == text[len(prompt) : end]
        assert (tally.passes_B[b], tally.accepted_B[b]) == (passes, stayed)
    assert 0.2 < (tally.acceptance or 0) < 0.9


@pytest.mark.parametrize("name", ["gpt", "lstm", "counts-3"])
def test_a_model_accepts_all_that_it_proposes_itself(name):
    rows, tally = drawn(name, name, [[0], [0, 3], [4, 1, 1]] * 200, most=9, tokens=2)
    assert {len(row) for row in rows} == {9}
    assert tally.acceptance == 1 and tally.tokens_per_pass == 3


@pytest.mark.slow
@pytest.mark.parametrize(("name", "draft"), [("gpt", "gpt-short"), ("lstm", "kneser-ney-4")])
def test_each_row_is_as_it_is_alone(name, draft):
    """Rows accept different numbers of tokens and end at different lengths; others beside them change nothing."""
    prompts = [[4], [1, 2, 3, 4, 5, 6, 1, 2], [6, 1, 4], [2, 2]]
    options: dict[str, Any] = {"most": 30, "end": END, "goes_on": True, "strategy": Strategy(1.2)}
    together, tally = drawn(name, draft, prompts, **options)
    assert len(set(tally.accepted_B.tolist())) > 1 and len(set(map(len, together))) > 1
    for b, prompt in enumerate(prompts):
        alone, own = drawn(name, draft, [prompt], places=[b], **options)
        assert alone == [together[b]]
        assert own.passes_B.tolist() == [tally.passes_B[b]]


@pytest.mark.slow
def test_ends_cut_the_text_that_goes_on_without_them():
    """After the end token, after a stop sequence, at the limit: wherever in a pass they come."""
    rows = [[b % V] for b in range(60)]
    free, _ = drawn("lstm", "gru", rows, most=20)
    ended, _ = drawn("lstm", "gru", rows, most=20, end=END)
    assert ended == [row[: row.index(END) + 1] if END in row else row for row in free]
    assert len({len(row) for row in ended}) > 5
    stop = tuple(free[0][2:4])
    stopped, _ = drawn("lstm", "gru", rows, most=20, stop=stop)
    for row, short in zip(free, stopped, strict=True):
        found = [i for i in range(2, len(row) + 1) if tuple(row[i - 2 : i]) == stop]
        assert short == row[: found[0] if found else len(row)]
    assert 1 < sum(len(row) < 20 for row in stopped) < 60
    for most in (1, 2, 7):
        assert drawn("lstm", "gru", rows, most=most)[0] == [row[:most] for row in free]


def test_a_model_without_positions_left_ends_a_text_that_does_not_go_on():
    (row,), _ = drawn("gpt", "kneser-ney-4", [[1, 2, 3]], most=40)
    assert len(row) == 12 + 1 - 3


@pytest.mark.slow
def test_pieces_are_the_text_and_have_the_tokens_of_one_pass_at_least():
    model, params = made("lstm")
    options: dict[str, Any] = {
        "draft": Draft(*made("gru"), 3), "settings": WIDE.rows(2), "key": KEY, "place_B": np.arange(2),
        "limit_B": np.array([20, 11]), "allowed_V": np.ones(V, bool),
    }  # fmt: skip
    (whole,) = speculative.decode(model, params, [[1], [2, 3]], **options)
    for every in (1, 4, 9):
        parts = list(speculative.decode(model, params, [[1], [2, 3]], every=every, **options))
        assert [[token for part in parts for token in part[b]] for b in range(2)] == whole
        assert max(len(tokens) for part in parts for tokens in part) <= max(every, 4)
        assert len(parts) > 2


@pytest.mark.slow
def test_other_settings_and_limits_compile_nothing():
    compiled: list[str] = []

    def watch(event: str, duration_secs: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(watch)
    drawn("gru", "counts-3", [[4], [1, 2]], end=END, most=11)
    assert compiled, "blind: nothing was counted"
    compiled.clear()
    for most, strategy in ((9, FILTERED), (10, Strategy(0.0)), (11, Strategy(top_p=0.5))):
        drawn("gru", "counts-3", [[3], [2, 2]], end=most - 8, most=most, strategy=strategy, key=jax.random.key(most))
    assert compiled == []


@functools.cache
def runs() -> tuple[jaxlm.Run, jaxlm.Run, jaxlm.Run]:
    """A bigram of names, a trigram of more tokens than there are, and one of other characters."""
    data = jaxlm.DataConfig()
    corpus, other = from_lines("\n".join(NAMES), data), from_lines("\n".join(NAMES) + "\nq", data)
    wide = dataclasses.replace(opened(jaxlm.CountsConfig(order=3), data, corpus))
    model: Any = jaxlm.CountsConfig(order=3, vocab_size=60).build()
    wide = dataclasses.replace(wide, model=model, params=model.fit(corpus.tokens_N, corpus.age_N)[0])
    return opened(jaxlm.CountsConfig(order=2), data, corpus), wide, opened(jaxlm.CountsConfig(order=3), data, other)


def test_a_run_drafts_for_another_with_more_tokens_and_for_one_with_fewer():
    bigram, wide, _ = runs()
    for run, draft in ((bigram, wide), (wide, bigram)):
        tallies: list[Tally] = []
        texts = generate(run, n=300, draft=draft, draft_tokens=3, report=tallies.append, key=KEY)
        assert set("".join(texts)) <= set(run.tokenizer.words)
        assert 0.3 < (tallies[0].acceptance or 0) < 0.9
        made_B = [len(text) + 1 for text in texts]
        assert tallies[0].made_B.tolist() == made_B
        plain = generate(run, n=300, key=jax.random.key(8))
        assert sum(made_B) / 300 == pytest.approx(sum(len(text) + 1 for text in plain) / 300, rel=0.15)


def test_a_stream_with_a_draft_is_the_text_that_generate_gives():
    run, draft, _ = runs()
    options: dict[str, Any] = {"draft": draft, "prompt": "a", "max_tokens": 15, "key": KEY}
    for place, text in enumerate(generate(run, n=3, **options)):
        parts = list(stream(run, place=place, **options))
        assert "".join(parts) == text[1:] and all(parts)


def test_a_draft_that_cannot_be_is_named():
    run, _, other = runs()
    named = dataclasses.replace
    with pytest.raises(UserError, match=r"draft 'b' wants the tokenizer of run 'a', got another one \(\d+ and \d+ tok"):
        generate(named(run, path="a"), draft=named(other, path="b"), key=KEY)
    for wrong in (0, 65):
        with pytest.raises(UserError, match=f"draft_tokens wants a number from 1 to 64, got {wrong}"):
            generate(run, draft=run, draft_tokens=wrong, key=KEY)
