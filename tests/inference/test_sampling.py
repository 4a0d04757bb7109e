"""Strategies against plain NumPy, sampled frequencies against probabilities, and the engine's loop."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import GptConfig, MlpConfig
from jaxlm.errors import UserError
from jaxlm.inference import engine
from jaxlm.inference.sampling import RowSettings, Strategy, filtered

V = 11
KEY = jax.random.key(7)


def reference(logits: np.ndarray, s: Strategy) -> np.ndarray:
    """p_V after the filters, token by token in float64. The logits differ from each other."""
    if s.temperature == 0:
        return np.eye(len(logits))[logits.argmax()]
    p = np.exp((logits - logits.max()) / s.temperature)
    p = p / p.sum()
    ranked = sorted(range(len(p)), key=lambda token: -p[token])
    if s.top_k is not None:
        p[ranked[s.top_k :]] = 0
        p = p / p.sum()
    if s.top_p is not None:
        reached = 0.0
        for token in ranked:
            if reached >= s.top_p:
                p[token] = 0
            reached += p[token]
        p = p / p.sum()
    if s.min_p is not None:
        p[p < s.min_p * p.max()] = 0
    return p / p.sum()


def probabilities(logits: Any, strategy: Strategy) -> np.ndarray:
    z_BV = filtered(jnp.asarray(logits, jnp.float32), strategy.rows(len(logits)))
    p_BV = np.asarray(jax.nn.softmax(z_BV), np.float64)
    return np.eye(len(p_BV[0]))[p_BV.argmax(1)] if strategy.temperature == 0 else p_BV  # `draw` takes the first


@pytest.mark.parametrize(
    "strategy",
    [
        Strategy(),
        Strategy(temperature=0),
        Strategy(temperature=0, top_k=3, top_p=0.5, min_p=0.1),
        Strategy(temperature=0.5),
        Strategy(temperature=3),
        Strategy(top_k=1),
        Strategy(top_k=4),
        Strategy(top_k=V),
        Strategy(top_k=10 * V),
        Strategy(top_p=1),
        Strategy(top_p=0.7),
        Strategy(top_p=1e-6),
        Strategy(top_p=1e-40),
        Strategy(min_p=0),
        Strategy(min_p=0.2),
        Strategy(min_p=1),
        Strategy(temperature=2, top_k=6),
        Strategy(top_k=5, top_p=0.8),
        Strategy(temperature=0.7, top_p=0.9, min_p=0.3),
        Strategy(temperature=1.5, top_k=7, top_p=0.85, min_p=0.15),
    ],
)
def test_filters_are_those_of_the_reference(strategy):
    logits_BV = 2 * np.random.default_rng(0).normal(size=(40, V)).astype(np.float32)
    want_BV = np.array([reference(row.astype(np.float64), strategy) for row in logits_BV])
    np.testing.assert_allclose(probabilities(logits_BV, strategy), want_BV, atol=1e-6)


def test_tokens_as_likely_as_the_kth_stay():
    p_BV = probabilities([[1, 3, 2, 2, 2, 0]], Strategy(top_k=2))
    np.testing.assert_array_equal(p_BV > 0, [[False, True, True, True, True, False]])
    np.testing.assert_allclose(p_BV.sum(), 1, rtol=1e-6)


def test_top_p_of_one_leaves_even_the_least_likely_token():
    p_V = probabilities([[0.0, -20.0, -18.0]], Strategy(top_p=1))[0]
    np.testing.assert_allclose(p_V, probabilities([[0.0, -20.0, -18.0]], Strategy())[0], rtol=1e-5)
    assert np.all(p_V > 0)


def test_a_filter_does_not_prefer_one_of_two_equal_tokens():
    for strategy in (Strategy(top_k=1), Strategy(top_p=0.3), Strategy(min_p=0.9)):
        p_V = probabilities([[1.0, 2.0, 2.0, 0.0]], strategy)[0]
        np.testing.assert_allclose(p_V, [0, 0.5, 0.5, 0], atol=1e-6)


def test_impossible_tokens_stay_impossible_and_hopeless_rows_are_uniform():
    logits = [[0.0, -np.inf, 1.0], [-np.inf] * 3]
    for strategy in (Strategy(), Strategy(temperature=5), Strategy(top_k=3), Strategy(top_p=1.0), Strategy(min_p=0.0)):
        p_BV = probabilities(logits, strategy)
        assert p_BV[0, 1] == 0
        np.testing.assert_allclose(p_BV[1], 1 / 3, rtol=1e-6)
    np.testing.assert_array_equal(probabilities(logits, Strategy(temperature=0))[0], [0, 0, 1])


@pytest.mark.parametrize("temperature", [1e-4, 1e-30, 1e-40])
def test_next_to_no_temperature_takes_the_most_likely(temperature):
    p_BV = probabilities([[0.0, 1.0, 0.5]], Strategy(temperature=temperature))
    np.testing.assert_array_equal(p_BV, [[0, 1, 0]])


def test_large_logits_do_not_overflow():
    p_BV = probabilities([[1e4, 1e4 - 1, -1e4]], Strategy(temperature=0.5, top_p=0.999, min_p=1e-3))
    np.testing.assert_allclose(p_BV, [[1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2)), 0]], rtol=1e-4)


@pytest.mark.parametrize(
    ("setting", "wrong"),
    [("temperature", -0.1), ("top_k", 0), ("top_p", 0.0), ("top_p", 1.01), ("min_p", -0.1), ("min_p", 1.1)],
)
def test_a_setting_out_of_range_is_named(setting, wrong):
    with pytest.raises(UserError, match=rf"{setting} wants .*got {wrong}"):
        Strategy(**{setting: wrong})


@dataclasses.dataclass(frozen=True)
class Chain:
    """A bigram whose table is its parameters; its cache counts the tokens that each row has read."""

    vocab_size: int = V
    max_length: None = None

    def init_cache(self, params: jax.Array, batch: int, length: int) -> jax.Array:
        return jnp.zeros(batch, jnp.int32)

    def extend(
        self, params: jax.Array, cache: jax.Array, tok_BT: jax.Array, length_B: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return params[tok_BT], cache + length_B


def run(params: Any, prompts: list[list[int]], model: Any = None, **options: Any) -> list[list[int]]:
    """The new tokens of each prompt."""
    B = len(prompts)
    settings: dict[str, Any] = {"strategy": Strategy(), "max_tokens": 12, "allowed_V": np.ones(V, bool)} | options
    strategy, most = settings.pop("strategy"), settings.pop("max_tokens")
    limit_B = np.array(settings.pop("limits", [most] * B), np.int32)
    place_B = np.array(settings.pop("places", range(B)), np.int32)
    chain: Any = Chain()
    rows = strategy if isinstance(strategy, RowSettings) else strategy.rows(B)
    made: list[list[int]] = [[] for _ in prompts]
    new = engine.decode(
        chain if model is None else model, params, prompts, settings=rows, key=settings.pop("key", KEY),
        place_B=place_B, limit_B=limit_B, **settings,
    )  # fmt: skip
    for part in new:
        for row, tokens in zip(made, part, strict=True):
            row += tokens
    return made


@functools.cache
def table() -> Any:
    return jnp.asarray(np.random.default_rng(1).normal(size=(V, V)), jnp.float32)


@functools.cache
def mlp() -> tuple[Any, Any]:
    model = MlpConfig(context=3, d_embed=4, d_hidden=16, vocab_size=V, init="normal").build()
    return model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 3), jnp.int32))


def test_tokens_are_drawn_as_often_as_they_are_likely():
    """Pearson's statistic has mean df and variance 2 df; the second token is drawn from the row of the first."""
    draws, strategy = 20_000, Strategy(temperature=1.3, top_k=8)
    rows = np.array(run(table(), [[4]] * draws, max_tokens=2, strategy=strategy))
    p_VV = probabilities(table(), strategy)
    for p_V, drawn in ((p_VV[4], rows[:, 0]), (p_VV[4] @ p_VV, rows[:, 1])):
        count_V = np.bincount(drawn, minlength=V)
        possible = p_V > 0
        assert not count_V[~possible].any()
        statistic = (((count_V - draws * p_V) ** 2)[possible] / (draws * p_V)[possible]).sum()
        df = possible.sum() - 1
        assert statistic < df + 4 * math.sqrt(2 * df)
    both, alone = np.bincount(V * rows[:, 0] + rows[:, 1], minlength=V * V).reshape(V, V), np.bincount(rows[:, 0])
    expected = alone[:, None] * p_VV[: len(alone)]
    often = expected > 5
    statistic = ((both[: len(alone)] - expected)[often] ** 2 / expected[often]).sum()
    assert statistic < often.sum() + 4 * math.sqrt(2 * often.sum())


def test_other_keys_give_other_draws():
    one, same, other = (run(table(), [[4]] * 3, key=jax.random.key(seed)) for seed in (0, 0, 1))
    assert one == same != other
    assert one[0] != one[1] != one[2]


def test_no_more_than_max_tokens():
    for most in (1, 2, 12):
        assert [len(row) for row in run(table(), [[4], [1, 2, 3]], max_tokens=most)] == [most, most]


def test_each_row_has_a_limit_of_its_own():
    prompts, limits = [[4], [1, 2, 3], [5, 6], [7], [8]], [12, 3, 0, 1, 0]
    free = run(table(), prompts)
    assert run(table(), prompts, limits=limits) == [row[:most] for row, most in zip(free, limits, strict=True)]


def test_a_rows_draws_depend_on_its_place_alone():
    prompts = [[4], [1, 2, 3], [5, 6]]
    one = run(table(), prompts)
    assert run(table(), prompts[::-1], places=[2, 1, 0]) == one[::-1]
    assert run(table(), prompts[1:2], places=[1]) == one[1:2]
    assert run(table(), prompts[:1], places=[1]) != one[:1]


@pytest.mark.parametrize("every", [1, 5, 100])
def test_tokens_that_come_in_parts_are_the_same(every):
    prompts, limits = [[4], [1, 2, 3], [5, 6]], [12, 7, 0]
    options: dict[str, Any] = {"limits": limits, "end": 2, "stop": (3, 4)}
    assert run(table(), prompts, every=every, **options) == run(table(), prompts, **options)
    chain: Any = Chain()
    parts = list(
        engine.decode(
            chain, table(), prompts, settings=Strategy().rows(3), key=KEY, place_B=np.arange(3), every=every,
            limit_B=np.array(limits), allowed_V=np.ones(V, bool),
        )
    )  # fmt: skip
    assert len(parts) == -(-12 // every)
    assert all(len(tokens) <= every for part in parts for tokens in part)


STRATEGIES = (
    Strategy(), Strategy(0.0), Strategy(0.5, top_k=3), Strategy(2.0, top_p=0.6), Strategy(min_p=0.1),
    Strategy(repetition_penalty=3.0), Strategy(1.2, 5, 0.9, 0.05, 0.7),
)  # fmt: skip


def test_each_row_has_settings_of_its_own():
    settings = RowSettings(*(np.concatenate(parts) for parts in zip(*(s.rows(1) for s in STRATEGIES), strict=True)))
    prompts = [[4, 3]] * len(STRATEGIES)
    mixed = run(table(), prompts, strategy=settings)
    for b, strategy in enumerate(STRATEGIES):
        assert mixed[b] == run(table(), prompts, strategy=strategy)[b]
    assert len(set(map(tuple, mixed))) == len(STRATEGIES)


def test_other_settings_limits_and_lengths_compile_nothing():
    compiled: list[str] = []

    def watch(event: str, duration_secs: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(watch)
    model, params = mlp()

    def draw_with(strategy: Strategy, **options: Any) -> None:
        for every in (None, 3):
            run(params, [[0, 4], [0, 3, 5]], model, strategy=strategy, every=every, **options)

    draw_with(Strategy(), end=0, stop=(1, 2), max_tokens=12)
    assert compiled, "blind: nothing was counted"
    compiled.clear()
    for number, strategy in enumerate(STRATEGIES):
        draw_with(strategy, end=number, stop=(number, 1), max_tokens=9 + number % 4, key=jax.random.key(number))
    draw_with(Strategy(), limits=[3, 13], places=[7, 9], stop=(4, 4), allowed_V=np.arange(V) > 2)
    assert compiled == []
    run(params, [[0]] * 3, model)
    assert compiled, "blind: another number of rows is another program"


@pytest.mark.parametrize("penalty", [1.7, 0.6])
def test_seen_tokens_are_penalised_by_their_sign(penalty):
    logits_BV = np.array([[2.0, 3.0, -1.0, 0.5, -2.0]], np.float32)
    seen_BV = np.array([[False, True, True, False, False]])
    z_BV = filtered(
        jnp.asarray(logits_BV), Strategy(0.5, repetition_penalty=penalty).rows(1), None, jnp.asarray(seen_BV)
    )
    want_V = np.array([2.0, 3.0 / penalty, -1.0 * penalty, 0.5, -2.0]) / 0.5
    np.testing.assert_allclose(z_BV[0], want_V - want_V.max(), atol=1e-5)


@pytest.mark.parametrize("every", [None, 2])
def test_tokens_of_the_prompt_and_of_the_answer_are_penalised_but_no_end(every):
    """All tokens are alike but token 0, the end: a huge penalty draws each of the others once, before any again."""
    alike = jnp.ones((V, V)).at[:, 0].set(0.5)
    strategy = Strategy(0.01, repetition_penalty=1e6)
    for row in run(alike, [[0, 3, 5]] * 20, max_tokens=V - 3, strategy=strategy, every=every):
        assert sorted(row) == sorted(set(range(V)) - {0, 3, 5})
    ends = run(alike.at[:, 0].set(2.0), [[0, 3]] * 5, max_tokens=3, every=every, strategy=strategy)
    assert ends == [[0, 0, 0]] * 5


def test_a_row_ends_after_the_end_token():
    free = run(table(), [[4]] * 50)
    ended = run(table(), [[4]] * 50, end=2)
    want = [row[: row.index(2) + 1] if 2 in row else row for row in free]
    assert ended == want
    assert len({len(row) for row in ended}) > 3
    assert run(table(), [[2], [4, 2]], end=2) == [
        row[: row.index(2) + 1] if 2 in row else row for row in (run(table(), [[2], [4, 2]]))
    ]  # an end token in the prompt ends nothing


def test_a_row_ends_once_its_last_tokens_are_the_stop_sequence():
    free = run(table(), [[4]] * 300)
    stop = (free[0][3], free[0][4])
    stopped = run(table(), [[4]] * 300, stop=stop)
    for row, short in zip(free, stopped, strict=True):
        found = [i for i in range(2, len(row) + 1) if tuple(row[i - 2 : i]) == stop]
        assert short == row[: found[0] if found else len(row)]
    assert 1 < sum(len(row) < 12 for row in stopped) < 300


def test_a_stop_sequence_is_not_found_in_the_prompt():
    loop = jnp.full((V, V), -jnp.inf).at[jnp.arange(V), jnp.arange(V)].set(0.0)  # repeats its last token
    assert run(loop, [[5, 5, 5]], stop=(5, 5), max_tokens=6) == [[5, 5]]


def test_a_stop_sequence_longer_than_the_text_is_never_found():
    assert run(table(), [[4]], stop=(1,) * 20, max_tokens=3) == run(table(), [[4]], max_tokens=3)


def test_a_token_that_is_never_drawn():
    assert any(6 in row for row in run(table(), [[4]] * 200))
    assert not any(6 in row for row in run(table(), [[4]] * 200, allowed_V=np.arange(len(table())) != 6))
    nothing = jnp.full((V, V), -jnp.inf)
    rows = run(nothing, [[4]] * 200, allowed_V=np.arange(len(table())) != 6)
    assert {token for row in rows for token in row} == set(range(V)) - {6}


def test_what_is_allowed_is_equally_likely_where_only_the_rest_is_possible():
    z_BV = filtered(jnp.array([[0.0, -jnp.inf, -jnp.inf]]), Strategy().rows(1), jnp.array([False, True, True]))
    np.testing.assert_array_equal(z_BV, [[-np.inf, 0, 0]])
    only_6 = jnp.full((V, V), -jnp.inf).at[:, 6].set(0.0)
    rows = run(only_6, [[4]] * 200, allowed_V=np.arange(V) != 6)
    assert {token for row in rows for token in row} == set(range(V)) - {6}


@pytest.mark.slow
def test_each_row_is_as_it_is_alone_whatever_stands_beside_it():
    """Same key, same row: other prompts, longer prompts and more rows change nothing."""
    model, params = mlp()
    prompts = [[4], [1, 2, 3, 4, 5, 6, 7], [9, 1, 4], [2, 2]]
    together = run(params, prompts, model, end=0)
    for b, prompt in enumerate(prompts):
        alone = run(params, [prompt] * (b + 1), model, end=0)
        assert together[b] == alone[b]
    assert len(set(map(tuple, together))) == 4


def test_temperature_0_is_a_loop_of_argmax():
    model, params = mlp()
    prompts = [[0], [0, 3, 5], [7, 1]]
    got = run(params, prompts, model, strategy=Strategy(temperature=0))
    for prompt, row in zip(prompts, got, strict=True):
        tokens = list(prompt)
        for _ in range(12):
            ctx = [*[0] * 3, *tokens][-3:]
            tokens.append(int(np.argmax(model.next_logits(params, jnp.array([ctx]))[0])))
        assert row == tokens[len(prompt) :]


@pytest.mark.slow
def test_a_cache_below_the_context_holds_all_tokens_that_are_read():
    """The last token too is the most likely after all before it, the cache being full then."""
    model: Any = GptConfig(context=32, n_layers=2, n_heads=2, d_model=16, vocab_size=V).build()
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    params = jax.tree.map(lambda leaf: 8 * leaf, params)
    prompts = [[b, b * b % V, 3] for b in range(V)]
    new_BN = np.array(run(params, prompts, model, strategy=Strategy(temperature=0), max_tokens=6))
    tok_BT = np.concatenate([prompts, new_BN], axis=1)
    logits_BTV = model.apply(params, jnp.asarray(tok_BT[:, :-1], jnp.int32))
    np.testing.assert_array_equal(new_BN, np.argmax(logits_BTV, axis=-1)[:, 2:])
    assert len(set(new_BN[:, -1].tolist())) > 1
