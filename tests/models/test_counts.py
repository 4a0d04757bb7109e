"""The count model against collections.Counter, and what k = 0 means."""

import dataclasses
import json
import math
from collections import Counter
from itertools import product
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxlm
from jaxlm import CountsConfig
from jaxlm.data.corpus import MAX_AGE, from_lines, line_ages
from jaxlm.models import trie
from jaxlm.models.counts import discounts
from jaxlm.ops.losses import nats_per_target
from tests.conftest import NAMES

V = 8


def grams(stream: np.ndarray, order: int, ages: np.ndarray | None = None) -> np.ndarray:
    """The tokens up to each place, boundaries before the start of its line (of the stream where no ages are given)."""
    ages = np.arange(len(stream)) if ages is None else ages
    rows = [
        [stream[i - back] if back <= age else 0 for back in reversed(range(order))]
        for i, age in enumerate(ages.tolist())
    ]
    return np.array(rows, np.int32).reshape(-1, order)


def fitted(order: int, add_k: float, stream: np.ndarray, vocab_size: int = V, ages: Any = None) -> tuple[Any, Any]:
    model = CountsConfig(order=order, add_k=add_k, vocab_size=vocab_size).build()
    return model, model.fit(stream, np.arange(len(stream)) if ages is None else ages)[0]


def by_counter(gram_NO: np.ndarray, ctx: tuple[int, ...], k: float, vocab_size: int = V) -> np.ndarray:
    """p_V after a context: the definition, one n-gram at a time."""
    of_token = np.zeros(vocab_size)
    for gram, n in Counter(map(tuple, gram_NO.tolist())).items():
        if gram[:-1] == ctx:
            of_token[gram[-1]] = n
    total = of_token.sum() + k * vocab_size
    return (of_token + k) / total if total else np.zeros(vocab_size)


@pytest.mark.slow
@pytest.mark.parametrize("add_k", [0.0, 0.01, 1.0, 2.5])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_are_those_of_a_counter(order, add_k):
    stream = np.random.default_rng(order).integers(0, V, 400)
    model, params = fitted(order, add_k, stream)
    ctx_BC = np.array(list(product(range(V), repeat=order - 1)), np.int32).reshape(V ** (order - 1), order - 1)
    got_BV = np.exp(np.asarray(model.next_logits(params, jnp.asarray(ctx_BC))))
    want_BV = np.array([by_counter(grams(stream, order), tuple(ctx), add_k) for ctx in ctx_BC.tolist()])
    np.testing.assert_allclose(got_BV, want_BV, rtol=1e-5)
    if add_k:
        np.testing.assert_allclose(got_BV.sum(-1), 1, rtol=1e-5)


@pytest.mark.slow
@given(
    stream=st.lists(st.integers(0, 4), min_size=5, max_size=40), order=st.integers(1, 5), k=st.sampled_from([0, 0.5])
)
@settings(max_examples=25, deadline=None)
def test_any_text_any_order(stream, order, k):
    gram_NO = grams(np.array(stream), order)
    model, params = fitted(order, k, np.array(stream), 5)
    ctx_BC = np.random.default_rng(0).integers(0, 5, (6, order - 1))
    ctx_BC[0] = gram_NO[-1, :-1]
    got_BV = np.exp(np.asarray(model.next_logits(params, jnp.asarray(ctx_BC, jnp.int32))))
    np.testing.assert_allclose(got_BV, [by_counter(gram_NO, tuple(c), k, 5) for c in ctx_BC.tolist()], rtol=1e-5)


def kneser_ney(gram_NO: np.ndarray, ctx: tuple[int, ...], size: int) -> np.ndarray:
    """p_V after a context by the definition: dictionaries of counts, one order on top of the other."""
    order = gram_NO.shape[1]
    count = {order: Counter(map(tuple, gram_NO.tolist()))}
    for length in range(order - 1, 0, -1):
        count[length] = Counter(gram[1:] for gram in count[length + 1])
    p_V = np.full(size, 1 / size)
    for length in range(1, order + 1):
        history = ctx[order - length :]
        numbers = np.array(list(count[length].values()))
        discount_4, _ = discounts(numbers)
        n_V = np.array([count[length].get((*history, v), 0) for v in range(size)])
        if n_V.sum():
            taken_V = discount_4[np.minimum(n_V, 3)]
            p_V = (n_V - taken_V) / n_V.sum() + taken_V.sum() / n_V.sum() * p_V
    return p_V


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [3, 8, 40])
def test_kneser_ney_is_that_of_the_definition(order, size):
    rng = np.random.default_rng(size)
    stream = np.minimum(rng.geometric(0.2, 500), size - 1)
    ages = np.concatenate([np.arange(n) for n in (7, 1, 100, 392)])
    model: Any = CountsConfig(order=order, smoothing="kneser-ney", vocab_size=size).build()
    params, _ = model.fit(stream, ages)
    gram_NO = grams(stream, order, ages)
    ctx_BC = np.concatenate([gram_NO[:40, :-1], rng.integers(0, size, (20, order - 1))]).astype(np.int32)
    got_BV = np.exp(np.asarray(model.next_logits(params, jnp.asarray(ctx_BC)), np.float64))
    np.testing.assert_allclose(got_BV.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(got_BV, [kneser_ney(gram_NO, tuple(ctx), size) for ctx in ctx_BC.tolist()], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("smoothing", ["add-k", "kneser-ney"])
def test_one_tokens_loss_is_that_of_all_logits(smoothing):
    stream = np.random.default_rng(5).integers(0, V, 300)
    model: Any = CountsConfig(order=4, smoothing=smoothing, vocab_size=V).build()
    params, _ = model.fit(stream, np.arange(300))
    ctx_BC, target_B = jnp.asarray(grams(stream, 3)[::-1]), jnp.asarray(stream % 5, jnp.int32)
    nats_B = model.next_nats(params, ctx_BC, target_B)
    np.testing.assert_allclose(nats_B, nats_per_target(model.next_logits(params, ctx_BC), target_B), rtol=1e-5)


def test_discounts_are_chen_and_goodmans():
    """20 n-grams once, 10 twice, 5 three and 4 four times: Y = 1/2, so 1 - 1/2, 2 - 3/4, 3 - 8/5."""
    discount_4, note = discounts(np.repeat([0, 1, 2, 3, 4, 9], [3, 20, 10, 5, 4, 2]))
    np.testing.assert_allclose(discount_4, [0, 0.5, 1.25, 1.4])
    assert not note


@pytest.mark.parametrize(
    ("numbers", "one"),
    [
        ([1, 1, 2], 0.5),
        ([5, 6, 7], 0.5),
        ([1] * 8 + [2] * 4 + [3] * 9 + [4], 0.5),
        ([1] * 6 + [2] * 3 + [3] * 4 + [4] * 2, 0.5),
    ],
)
def test_where_counts_of_counts_do_not_allow_three_discounts_there_is_one_and_a_note(numbers, one):
    discount_4, note = discounts(np.array(numbers))
    np.testing.assert_allclose(discount_4, [0, one, one, one])
    assert "one discount 0.500 in place of three" in note


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, 2, 3, 6])
def test_words_are_counted_with_the_boundary_around_them(order):
    corpus = from_lines("\n".join(NAMES), jaxlm.DataConfig(split=(1, 0, 0)))
    size, encode = corpus.tokenizer.vocab_size, corpus.tokenizer.encode
    model, params = fitted(order, 0.0, corpus.tokens_N, size, corpus.age_N)
    count: Counter[str] = Counter()
    for name in NAMES:
        padded = "." * (order - 1) + name + "."
        count.update(padded[i : i + order] for i in range(len(name) + 1))
    assert count.total() == sum(len(name) + 1 for name in NAMES)
    gram_NO = np.array([[0 if c == "." else int(encode(c)[0]) for c in gram] for gram in count], np.int32)
    logits_NV = model.next_logits(params, jnp.asarray(gram_NO[:, :-1]))
    after: Counter[str] = Counter()
    for gram, n in count.items():
        after[gram[:-1]] += n
    want_N = [n / after[gram[:-1]] for gram, n in count.items()]
    np.testing.assert_allclose(np.exp(logits_NV[np.arange(len(count)), gram_NO[:, -1]]), want_N, rtol=1e-5)


@pytest.mark.slow
def test_without_smoothing_what_was_not_seen_is_impossible():
    model, params = fitted(3, 0.0, np.array([1, 2, 3, 1, 2, 3, 1, 2, 4]), ages=np.array([0, 1, 2] * 3))
    seen_V, unseen_V, no_first_V = np.asarray(model.next_logits(params, jnp.array([[1, 2], [2, 1], [7, 7]])))
    np.testing.assert_allclose(seen_V[[3, 4]], np.log([2 / 3, 1 / 3]), rtol=1e-6)
    assert np.all(np.isneginf(np.delete(seen_V, [3, 4])))
    assert np.all(np.isneginf(unseen_V))
    assert np.all(np.isneginf(no_first_V))


def test_the_loss_with_an_impossible_event_is_null_and_the_events_are_counted(make_run):
    path = make_run(CountsConfig(order=3, add_k=0.0))
    config = jaxlm.load_run(path).config
    corpus = from_lines("\n".join(NAMES), config.data)

    def trigrams(split: str) -> list[tuple[int, ...]]:
        start, end = corpus.bounds[split]
        return [tuple(gram) for gram in grams(corpus.tokens_N[start:end], 3, corpus.age_N[start:end]).tolist()]

    seen = Counter(trigrams("train"))
    result = json.loads((path / "eval.json").read_text())
    for split in ("dev", "test"):
        impossible = sum(gram not in seen for gram in trigrams(split))
        assert impossible > 0
        entry = result[split]
        assert entry["impossible"] == impossible
        assert [entry[name] for name in ("nats_per_token", "bits_per_byte", "perplexity")] == [None] * 3
        assert entry["tokens"] == corpus.size(split)
    assert "impossible" not in result["train"]
    context_count: Counter[Any] = Counter()
    for gram, n in seen.items():
        context_count[gram[:-1]] += n
    nats = sum(n * math.log(context_count[gram[:-1]] / n) for gram, n in seen.items())
    assert result["train"]["nats_per_token"] == pytest.approx(nats / corpus.size("train"), rel=1e-5)


def test_after_an_unseen_context_every_token_is_equally_likely(counts_run):
    prompt = "zz"
    assert not any(prompt in name for name in NAMES)
    texts = jaxlm.generate(counts_run, n=4000, prompt=prompt, max_tokens=1, key=jax.random.key(1))
    size = counts_run.tokenizer.vocab_size
    count = Counter(text[2:] for text in texts)
    assert count.total() == 4000
    expected = 4000 / size
    statistic = sum((n - expected) ** 2 / expected for n in count.values()) + (size - len(count)) * expected
    assert statistic < size - 1 + 4 * math.sqrt(2 * (size - 1))


def test_a_table_of_no_text_is_uniform():
    for order in (1, 2, 3):
        model = CountsConfig(order=order, add_k=1.0, vocab_size=V).build()
        params = model.init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))
        logits_BTV = model.apply(params, jnp.arange(6).reshape(2, 3))
        np.testing.assert_allclose(logits_BTV, -math.log(V), rtol=1e-6)
        nothing = CountsConfig(order=order, add_k=0.0, vocab_size=V).build()
        assert np.all(np.isneginf(nothing.apply(params, jnp.arange(6).reshape(2, 3))))


@pytest.mark.slow
@pytest.mark.parametrize("order", [2, 3, 5])
def test_a_large_vocabulary(order):
    """More n-grams are possible than 32 bits count; memory follows those that occur."""
    size, rng = 500_000, np.random.default_rng(0)
    stream = np.concatenate([rng.integers(0, size, 5000), np.full(10, size - 1)])
    stream = np.tile(stream, 2)
    gram_NO = grams(stream, order)
    model, params = fitted(order, 0.5, stream, size)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) < 6 * order * len(stream)
    ctx_BC = np.concatenate([gram_NO[[0, 17, -1], :-1], np.full((1, order - 1), 5), gram_NO[[40], :-1][:, ::-1]])
    got_BV = np.exp(np.asarray(model.next_logits(params, jnp.asarray(ctx_BC, jnp.int32)), np.float64))
    for got_V, ctx in zip(got_BV, ctx_BC.tolist(), strict=True):
        np.testing.assert_allclose(got_V, by_counter(gram_NO, tuple(ctx), 0.5, size), rtol=1e-4)
    np.testing.assert_allclose(got_BV.sum(-1), 1, rtol=1e-4)


@pytest.mark.parametrize("kind", ["lines", "stream"])
@pytest.mark.parametrize(("vocab_size", "order"), [(2, 1), (2, 9), (2, 17), (5, 3), (27, 2)])
def test_many_tokens_are_counted_in_one_pass_to_the_same_trie(monkeypatch, vocab_size, order, kind):
    rng = np.random.default_rng(5)
    tokens_N = rng.integers(0 if kind == "lines" else 1, vocab_size, 2 * trie.BLOCK + 77).astype(np.int32)
    age_N = line_ages(tokens_N) if kind == "lines" else np.minimum(np.arange(len(tokens_N)), MAX_AGE).astype(np.uint16)
    levels = trie.count(tokens_N, age_N, order, vocab_size)
    monkeypatch.setattr(trie, "TABLE_SHARE", 0)
    for table, pass_by_pass in zip(levels, trie.count(tokens_N, age_N, order, vocab_size), strict=True):
        chex.assert_trees_all_equal(dataclasses.asdict(table), dataclasses.asdict(pass_by_pass))
        assert table.count.dtype == pass_by_pass.count.dtype and table.token.dtype == pass_by_pass.token.dtype


def test_smoothing_pulls_towards_the_uniform_distribution():
    stream = np.random.default_rng(3).integers(0, 3, 200)
    far = []
    for k in (0.1, 1.0, 10.0, 1e6):
        model, params = fitted(2, k, stream)
        p_V = np.exp(np.asarray(model.next_logits(params, jnp.array([[1]])))[0])
        far.append(np.abs(p_V - 1 / V).max())
    assert far == sorted(far, reverse=True)
    assert far[-1] < 1e-4


def test_the_neural_bigram_comes_down_to_the_counts(make_run):
    """Full-batch descent ends at the counts' loss: the entropy of a letter given the one before it."""
    lines = ["abba", "baab", "aabb", "bab", "a", "bbba", "abab"]
    pairs = Counter(pair for line in lines for pair in zip("." + line, line + ".", strict=True))
    before: Counter[str] = Counter()
    for pair, n in pairs.items():
        before[pair[0]] += n
    want = sum(n * math.log(before[pair[0]] / n) for pair, n in pairs.items()) / pairs.total()
    path = make_run(
        jaxlm.NgramConfig(order=2),
        text="\n".join(lines),
        data={"split": (1, 0, 0)},
        optim=jaxlm.OptimConfig(lr=5.0, momentum=0.9),
        steps=300,
        batch_size="full",
    )
    got = json.loads((path / "eval.json").read_text())["train"]
    assert got["tokens"] == pairs.total()
    assert want - 1e-6 < got["nats_per_token"] < want + 1e-4
