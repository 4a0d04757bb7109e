"""Batches against plain Python loops, and as functions of (seed, step)."""

import functools
from collections import Counter

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.config import DataConfig, NgramConfig, RunConfig
from jaxlm.data.batches import Batcher, Tokens, prepare, row_table, sequences_at, windows_at
from jaxlm.data.corpus import SPLITS, from_lines, from_stream

NAMES = "emma\nolivia\nava\nisabella\nsophia\nava\nmia\nzoë\no'brien\nmary ann\na\n"
DISTINCT = "".join(chr(0x100 + i) for i in range(100))


def prepared(text, context=None, batch_size=4, **data):
    config = RunConfig(model=NgramConfig(), data=DataConfig(**data), steps=1, batch_size=batch_size)
    corpus = (from_lines if config.data.kind == "lines" else from_stream)(text, config.data)
    batcher, host, rows = prepare(config, corpus, context)
    return corpus, batcher, jax.tree.map(jnp.asarray, host), rows


@functools.partial(jax.jit, static_argnames="batcher")
def rows_of(batcher, tokens, rows):
    return batcher.rows(tokens, rows)


@functools.partial(jax.jit, static_argnames="batcher")
def batches_of(batcher, tokens, row_KB):
    return jax.vmap(lambda row_B: batcher.at(tokens, row_B))(row_KB)


def draw(batcher, tokens, seed, steps):
    """The batches of some steps."""
    return batches_of(batcher, tokens, batcher.draw(seed, steps))


@pytest.mark.parametrize("context", [0, 1, 3, 12])
def test_windows_of_lines_are_the_lectures_loop(context):
    corpus, batcher, tokens, rows = prepared(NAMES, context)
    for split in SPLITS:
        expected_x, expected_y = [], []
        for line in corpus.lines[split]:
            seen = [0] * context
            for token in [*corpus.tokenizer.encode(line).tolist(), 0]:
                expected_x.append(list(seen))
                expected_y.append(token)
                seen = [*seen, token][1:] if context else []
        batch = rows_of(batcher, tokens, rows[split])
        chex.assert_type([batch.tok, batch.target], jnp.int32)
        np.testing.assert_array_equal(batch.tok, np.array(expected_x).reshape(len(expected_y), context))
        np.testing.assert_array_equal(batch.target, expected_y)
        np.testing.assert_array_equal(batch.weight, np.ones(len(expected_y)))


def test_windows_of_a_stream_see_their_own_split_only():
    corpus, batcher, tokens, rows = prepared(DISTINCT, context=3, kind="stream")
    for split in SPLITS:
        part = corpus.tokens(split).tolist()
        padded = [0, 0, 0, *part]
        batch = rows_of(batcher, tokens, rows[split])
        np.testing.assert_array_equal(batch.tok, [padded[i : i + 3] for i in range(len(part))])
        np.testing.assert_array_equal(batch.target, part)


def test_sequences_of_lines_predict_every_token_and_the_end():
    corpus, batcher, tokens, rows = prepared(NAMES, example="sequence")
    assert batcher.width == corpus.longest
    for split in SPLITS:
        batch = rows_of(batcher, tokens, rows[split])
        assert len(rows[split]) == len(corpus.lines[split])
        for row, line in enumerate(corpus.lines[split]):
            spelled, rest = corpus.tokenizer.encode(line).tolist(), [0] * (batcher.width - len(line) - 1)
            assert batch.tok[row].tolist() == [0, *spelled, *rest]
            assert batch.target[row].tolist() == [*spelled, 0, *rest]
            assert batch.weight[row].tolist() == [1] * (len(line) + 1) + rest


LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=8)
SPLIT = st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.0, 0.5), (1.0, 0.0, 0.0), (0.1, 0.1, 0.8)])


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 50), SPLIT, st.sampled_from(["lines", "stream"]))
def test_rows_count_every_prediction_once_and_stay_in_their_line(lengths, width, split, kind):
    text = "\n".join("a" * length for length in lengths)
    config = DataConfig(split=split, kind=kind)
    corpus = (from_lines if kind == "lines" else from_stream)(text, config)
    columns, ranges = row_table(corpus, width)
    chex.assert_type(list(columns.values()), np.int32)
    for name in SPLITS:
        counted: Counter[int] = Counter()
        for row in range(*ranges[name]):
            first, length, skip = (int(columns[column][row]) for column in ("first", "length", "skip"))
            assert 0 <= skip < length <= width
            assert not (corpus.age_N[first + 1 : first + length] == 0).any()
            assert skip == 0 or skip >= width // 2
            assert skip > 0 or corpus.age_N[first] == 0 or width == 1
            counted.update(range(first + skip, first + length))
        assert counted == Counter(range(*corpus.bounds[name]))
    assert [ranges["train"][0], ranges["dev"][0], ranges["test"][0]] == [0, ranges["train"][1], ranges["dev"][1]]
    assert ranges["test"][1] == len(columns["first"])


compiled_sequences_at = jax.jit(sequences_at, static_argnames="width")


@settings(deadline=None)
@given(st.lists(st.text("abcdefg", min_size=1, max_size=30), min_size=1, max_size=5), st.sampled_from([1, 2, 3, 5, 8]))
def test_overlapping_sequences_give_each_prediction_its_own_past(lines, width):
    corpus = from_lines("\n".join(lines), DataConfig(split=(1, 0, 0)))
    columns, _ = row_table(corpus, width)

    def filled_up(array):
        return jnp.asarray(np.pad(array, (0, 200 - len(array))))

    tokens = Tokens(*map(filled_up, (corpus.tokens_N, corpus.age_N, *columns.values())))
    batch = compiled_sequences_at(tokens, tokens.first_R, tokens.length_R, tokens.skip_R, width=width)
    counted = []
    for tok_T, target_T, weight_T, first in zip(*map(np.asarray, (*batch, tokens.first_R)), strict=True):
        for t in np.flatnonzero(weight_T):
            place = first + t
            past = [0, *corpus.tokens_N[place - corpus.age_N[place] : place].tolist()]
            assert tok_T[: t + 1].tolist() == past[-(t + 1) :]
            assert target_T[t] == corpus.tokens_N[place]
            counted.append(place)
    assert sorted(counted) == list(range(len(corpus.tokens_N)))


def test_a_row_of_minus_one_weighs_nothing():
    rows = jnp.array([2, -1, 0, -1])
    _, windows, tokens, _ = prepared(NAMES, context=3)
    assert rows_of(windows, tokens, rows).weight.tolist() == [1, 0, 1, 0]
    _, sequences, tokens, _ = prepared(NAMES, example="sequence")
    weight_BT = rows_of(sequences, tokens, rows).weight
    assert (weight_BT.sum(1) > 0).tolist() == [True, False, True, False]
    np.testing.assert_array_equal(weight_BT[::2], rows_of(sequences, tokens, rows[::2]).weight)


KINDS = [
    {"example": "window", "kind": "lines"},
    {"example": "window", "kind": "stream"},
    {"example": "sequence", "kind": "lines", "max_length": 5},
    {"example": "sequence", "kind": "stream", "max_length": 5},
]


@pytest.mark.parametrize("data", KINDS, ids=lambda data: f"{data['example']}-{data['kind']}")
def test_a_batch_is_a_function_of_seed_and_step(data):
    _, batcher, tokens, _ = prepared(NAMES * 3, context=3, batch_size=8, **data)

    def at(seed, step):
        return jax.tree.map(lambda leaf: leaf[0], draw(batcher, tokens, seed, range(step, step + 1)))

    chex.assert_trees_all_equal(at(0, 7), at(0, 7))
    chex.assert_trees_all_equal(at(0, 7), batcher.at(tokens, jnp.asarray(batcher.draw(0, range(7, 8))[0])))
    together = draw(batcher, tokens, 0, range(5, 9))
    for i, step in enumerate(range(5, 9)):
        chex.assert_trees_all_equal(jax.tree.map(lambda leaf, i=i: leaf[i], together), at(0, step))
    assert not np.array_equal(at(0, 7).tok, at(0, 8).tok)
    assert not np.array_equal(at(0, 7).tok, at(1, 7).tok)
    assert len(at(0, 7).tok) == len(at(0, 7).target) == 8


@pytest.mark.parametrize("example", ["window", "sequence"])
def test_every_prediction_of_train_is_drawn_and_none_of_the_others(example):
    cut = {"max_length": 9} if example == "sequence" else {}
    _, batcher, tokens, _ = prepared(DISTINCT, context=3, batch_size=64, kind="stream", example=example, **cut)
    batch = draw(batcher, tokens, 0, range(30))
    train = set(range(1, 81))
    assert set(np.unique(batch.target).tolist()) == train
    assert set(np.unique(batch.tok).tolist()) == (train | {0}) - {80}
    assert batch.weight is None or (np.asarray(batch.weight) == 1).all()


def test_sequences_drawn_from_a_stream_begin_with_the_token_before_them():
    _, batcher, tokens, _ = prepared(DISTINCT, batch_size=64, kind="stream", example="sequence", max_length=9)
    batch = draw(batcher, tokens, 0, range(1))
    np.testing.assert_array_equal(batch.tok + 1, batch.target)


def test_lines_are_drawn_evenly_from_train():
    corpus, batcher, tokens, _ = prepared("\n".join(DISTINCT), batch_size=100, example="sequence")
    batch = draw(batcher, tokens, 0, range(200))
    drawn = Counter(np.asarray(batch.target)[..., 0].reshape(-1).tolist())
    assert set(drawn) == {int(corpus.tokenizer.encode(line)[0]) for line in corpus.lines["train"]}
    expected = 200 * 100 / 80
    chi_square = sum((count - expected) ** 2 / expected for count in drawn.values())
    assert chi_square < 79 + 5 * np.sqrt(2 * 79)


@pytest.mark.parametrize("data", KINDS, ids=lambda data: f"{data['example']}-{data['kind']}")
def test_a_full_batch_is_all_of_train_at_every_step(data):
    corpus, batcher, tokens, rows = prepared(NAMES, context=3, batch_size="full", **data)
    both = draw(batcher, tokens, 0, range(4, 6))
    batch, again = (jax.tree.map(lambda leaf, i=i: leaf[i], both) for i in range(2))
    chex.assert_trees_all_equal(batch, again)
    everything = rows_of(batcher, tokens, rows["train"])
    chex.assert_trees_all_equal(batch[:2], everything[:2])
    counted = batch.target.size if batch.weight is None else int(batch.weight.sum())
    assert counted == corpus.size("train")
    assert batcher.batch_size == batcher.examples == len(batch.tok)


def test_a_stream_shorter_than_the_width_is_padded():
    _, batcher, tokens, _ = prepared("abcdef", batch_size=3, kind="stream", example="sequence", max_length=8)
    batch = jax.tree.map(lambda leaf: leaf[0], draw(batcher, tokens, 0, range(1)))
    assert batch.target.tolist() == [[1, 2, 3, 4, 0, 0, 0, 0]] * 3
    assert batch.tok.tolist() == [[0, 1, 2, 3, 0, 0, 0, 0]] * 3
    assert batch.weight.tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]] * 3


def test_a_batcher_is_hashable_and_says_what_train_offers():
    corpus, windows, _, _ = prepared(NAMES, context=3)
    _, sequences, _, _ = prepared(NAMES, example="sequence")
    assert isinstance(hash(windows), int)
    assert windows.examples == corpus.size("train")
    assert sequences.examples == len(corpus.lines["train"])


def test_places_before_the_first_token_are_the_boundary():
    tokens = Tokens(
        *(jnp.asarray(a) for a in ([4, 5, 0, 6], np.array([0, 1, 2, 0], np.uint16), [0, 3], [3, 1], [0, 0]))
    )
    assert windows_at(tokens, jnp.array([0, 1, 3]), 2).tok.tolist() == [[0, 0], [0, 4], [0, 0]]
    batch = sequences_at(tokens, jnp.array([0, 3]), jnp.array([3, 1]), jnp.array([1, 0]), 4)
    assert batch.tok.tolist() == [[0, 4, 5, 0], [0, 0, 0, 0]]
    assert batch.target.tolist() == [[4, 5, 0, 0], [6, 0, 0, 0]]
    assert np.asarray(batch.weight).tolist() == [[0, 1, 1, 0], [1, 0, 0, 0]]


def test_the_batch_size_is_the_settings_own():
    _, batcher, _, _ = prepared(NAMES, context=2, batch_size=7)
    assert isinstance(batcher, Batcher)
    assert (batcher.batch_size, batcher.width, batcher.full) == (7, 2, False)
