"""The running batch: each row is what it is alone, rows join and leave between tokens, kept caches change nothing."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import BowConfig, GptConfig
from jaxlm.inference import engine, slots
from jaxlm.inference.batcher import Batcher
from jaxlm.inference.rows import Drawn, Kept, PromptScored, Row
from jaxlm.inference.sampling import Strategy
from tests.models.test_decoding import MODELS, made
from tests.models.test_models import V

SETTINGS = (
    Strategy(),
    Strategy(temperature=0),
    Strategy(temperature=1.7, top_k=4),
    Strategy(top_p=0.6, repetition_penalty=1.4),
    Strategy(min_p=0.1, temperature=0.8),
)
ALLOWED = np.arange(V) != V - 1
GPT: Any = GptConfig(context=48, n_layers=2, n_heads=2, d_model=16, vocab_size=V)


@functools.cache
def gpt() -> tuple[Any, Any]:
    """A GPT whose contexts matter: parameters larger than at its start."""
    model = GPT.build()
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    return model, jax.tree.map(lambda x: 4 * x, params)


@functools.cache
def bow() -> tuple[Any, Any]:
    """A bag of words, whose cache has positions beside a sum that cannot be taken back."""
    config: Any = BowConfig(context=48, d_embed=8, d_hidden=16, vocab_size=V)
    model = config.build()
    return model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))


def batcher(model: Any, params: Any, **options: Any) -> Batcher:
    settings: dict[str, Any] = {"places": 4, "room": model.max_length or 64, "allowed_V": ALLOWED, "eos": 0}
    return Batcher(model, params, **settings | options)


def row(number: int = 0, size: int = 5, limit: int = 9, **options: Any) -> Row:
    """Row `number`, with a prompt, a seed, a place and settings of its own."""
    tokens = np.random.default_rng(number).integers(1, V - 1, size).tolist()
    return Row(tokens, SETTINGS[number % len(SETTINGS)], seed=100 + number, place=number % 3, limit=limit, **options)


def alone(model: Any, params: Any, row: Row, end: int | None = None) -> list[int]:
    """The row's new tokens by the engine."""
    new = engine.decode(
        model,
        params,
        [row.tokens],
        settings=row.strategy.rows(1),
        key=jax.random.key(row.seed),
        place_B=np.array([row.place]),
        limit_B=np.array([row.limit], np.int32),
        allowed_V=ALLOWED,
        end=end,
        goes_on=row.goes_on,
    )
    return [token for (tokens,) in new for token in tokens]


def drain(batcher: Batcher) -> list[Any]:
    events = []
    while not batcher.is_idle:
        events += batcher.step()
    return events


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_rows_that_join_a_running_batch_are_what_they_are_alone(name):
    model, params = made(name)
    goes_on = model.max_length is not None
    rows = [row(i, size=1 + 3 * i % 7, limit=3 + 2 * i, goes_on=goes_on) for i in range(7)]
    running = batcher(model, params)
    for one in rows:  # more than there are places, each while others are being drawn from
        running.submit(one)
        running.step()
    drain(running)
    assert [one.made for one in rows] == [alone(model, params, one) for one in rows]
    assert len({tuple(one.made) for one in rows}) == 7


def test_settings_of_each_row_are_its_own():
    model, params = gpt()
    rows = [row(i) for i in range(5)]
    running = batcher(model, params, places=8)
    for one in rows:
        running.submit(one)
    events = drain(running)
    assert [one.made for one in rows] == [alone(model, params, one) for one in rows]
    for one in rows:
        drawn = [event for event in events if event.row is one]
        assert [event.token for event in drawn] == one.made
        assert [event.reason for event in drawn] == [None] * 8 + ["length"]


def test_the_batch_grows_with_its_rows_and_shrinks_after_them():
    running = batcher(*gpt(), places=8)
    running.submit(row(0, limit=60, goes_on=True))
    running.step()
    assert (running.size, running.active, running.waiting) == (1, 1, 0)
    for i in range(1, 9):
        running.submit(row(i, limit=2))
    running.step()
    assert (running.size, running.active, running.waiting) == (8, 8, 1)
    drain(running)
    assert running.size == 1 and running.is_idle


def test_a_row_ends_with_a_token_that_ends_it_and_frees_its_place():
    model, params = gpt()
    want = alone(model, params, row(2, limit=30))
    end = want[4]
    running = batcher(model, params, places=1)
    first, second = row(2, limit=30, ends=frozenset({end, V + 1})), row(3)
    running.submit(first)
    running.submit(second)
    events = drain(running)
    assert first.made == want[: want.index(end) + 1] == alone(model, params, first, end)
    assert [event.reason for event in events if event.row is first][-1] == "stop"
    assert second.made == alone(model, params, second)


def test_a_cancelled_row_is_drawn_no_more_and_leaves_the_others_alone():
    model, params = gpt()
    rows = [row(i, limit=20) for i in range(4)]
    running = batcher(model, params, places=2)
    for one in rows:
        running.submit(one)
    while len(rows[0].made) < 3:
        running.step()
    running.cancel(rows[0])
    running.cancel(rows[3])  # which waits
    assert running.active == 1
    events = drain(running)
    assert len(rows[0].made) == 3 and not rows[3].made
    assert {event.row for event in events} == {rows[1], rows[2]}
    assert [rows[i].made for i in (1, 2)] == [alone(model, params, rows[i]) for i in (1, 2)]


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_row_ends_or_goes_on_where_positions_end(goes_on):
    model, params = gpt()
    rows = [row(i, size=size, limit=70, goes_on=goes_on) for i, size in enumerate((5, 48, 60))]
    running = batcher(model, params)
    for one in rows:
        running.submit(one)
    events = drain(running)
    assert [one.made for one in rows] == [alone(model, params, one) for one in rows]
    assert [len(one.made) for one in rows] == ([70] * 3 if goes_on else [44, 1, 1])
    assert [event.reason for event in events if event.reason] == ["length"] * 3


def test_log_p_is_that_of_the_models_own_distribution():
    model, params = gpt()
    scored, plain = row(3, size=30, top=2, scores_prompt=True), row(4)
    running = batcher(model, params, places=2)
    running.submit(plain)
    running.submit(scored)
    events = drain(running)
    tokens = [*scored.tokens, *scored.made]
    log_p_TV = np.asarray(jax.nn.log_softmax(model.apply(params, jnp.asarray([tokens]))[0]))
    found = [score for event in events if isinstance(event, PromptScored) for score in event.scores]
    drawn = [event for event in events if isinstance(event, Drawn) and event.row is scored]
    found += [event.score for event in drawn if event.score is not None]
    assert len(found) == len(tokens) - 1
    for place, score in enumerate(found):
        order = np.argsort(-log_p_TV[place])[:2]
        np.testing.assert_allclose(score.log_p, log_p_TV[place, tokens[place + 1]], atol=2e-5)
        assert [token for token, _ in score.top] == order.tolist()
        np.testing.assert_allclose([log_p for _, log_p in score.top], log_p_TV[place, order], atol=2e-5)
    assert all(event.score is None for event in events if event.row is plain)
    assert scored.made == alone(model, params, scored)


def test_a_prompt_can_be_scored_without_drawing():
    model, params = gpt()
    only = row(1, size=40, limit=0, top=0, scores_prompt=True)
    running = batcher(model, params)
    running.submit(only)
    events = drain(running)
    assert sum(len(event.scores) for event in events) == 39
    assert events[-1].reason == "length" and not only.made and only.ended


def test_a_long_prompt_is_read_in_parts_between_the_tokens_of_others():
    model = GptConfig(context=1024, n_layers=1, n_heads=1, d_model=8, vocab_size=V).build()
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    running = batcher(model, params, places=2)
    short, long = row(0, limit=20), row(1, size=900, limit=3)
    running.submit(short)
    running.step()
    running.submit(long)
    events = []
    while not long.made:
        events += running.step()
    assert len(short.made) >= 3
    drain(running)
    assert long.made == alone(model, params, long)


@pytest.mark.parametrize("name", ["gpt", "lstm", "mlp-3-scaled", "bow"])
def test_kept_caches_change_no_text(name):
    """A conversation: each prompt is the one before, its answer, and more; then one that goes another way."""
    model, params = {"gpt": gpt, "bow": bow}.get(name, functools.partial(made, name))()
    running = batcher(model, params, kept=3)
    tokens, reused = row(1, size=18).tokens, []
    for number in range(4):
        one = Row(tokens, Strategy(), seed=number, place=0, limit=3)
        running.submit(one)
        drain(running)
        assert one.made == alone(model, params, one)
        reused.append(one.reused)
        tokens = [*tokens, *one.made, *row(9 + number, size=2).tokens]
        if number == 2:
            tokens = [*tokens[:18], *row(30, size=3).tokens]
    assert reused[0] == 0 and all(reused[1:3])
    assert (reused[3] > 0) == (name == "gpt"), "only a cache of tokens at positions can be taken back"


def test_the_longest_unused_cache_is_dropped():
    kept = Kept(2, made("mlp-3-scaled")[0])
    texts = [list(range(i, i + 20)) for i in range(3)]
    kept.keep(texts[0], "a")
    kept.keep(texts[1], "b")
    assert kept.find([*texts[0], 7]) == (20, "a")
    kept.keep(texts[2], "c")
    assert kept.find(texts[1]) == (0, None)
    assert kept.find(texts[0]) == (20, "a") and len(kept) == 2
    assert kept.find(texts[0][:19]) == (0, None), "a cache without positions cannot be taken back"


def test_a_failure_loses_the_rows_and_no_later_ones(monkeypatch):
    model, params = gpt()
    running = batcher(model, params)
    rows = [row(i) for i in range(2)]
    for one in rows:
        running.submit(one)
    running.step()
    assert set(running.fail_all()) == set(rows) and running.is_idle
    after = row(3)
    running.submit(after)
    drain(running)
    assert after.made == alone(model, params, after)


def test_rows_of_the_cache_are_found_whatever_its_form():
    for name in ("gpt", "rean-faithful", "lstm", "mlp-3-scaled"):
        model, params = made(name)
        axes = jax.tree.leaves(slots.batch_axes(model, params, 8))
        cache = jax.eval_shape(lambda p, model=model: model.init_cache(p, 5, 8), params)
        assert [leaf.shape[axis] for axis, leaf in zip(axes, jax.tree.leaves(cache), strict=True)] == [5] * len(axes)


def test_warming_up_compiles_what_rows_want():
    running = batcher(*gpt(), places=2, kept=1)
    names = list(running.warm_up())
    assert names == ["batches of 1", "batches of 2", "prompts of 16 tokens", "prompts of 32 tokens"]
    assert running.is_idle and running.size == 1
    one = row(1, size=30)
    running.submit(one)
    compiled: Any = slots.programs()
    before = compiled.step._cache_size(), compiled.read._cache_size()
    drain(running)
    assert (compiled.step._cache_size(), compiled.read._cache_size()) == before
    assert one.made == alone(*gpt(), one)


@pytest.mark.parametrize("places", [0, 3])
def test_places_are_a_power_of_2(places):
    with pytest.raises(ValueError, match="places wants a power of 2"):
        batcher(*gpt(), places=places)
