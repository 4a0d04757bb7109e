"""The order of rows: permutations of epochs, draws with replacement, both uniform and functions of (seed, position)."""

import itertools
import math
from collections import Counter

import jax
import jax.extend.random
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlm.data import order
from jaxlm.ops import prng


def is_uniform(counts, expected):
    """Whether a chi-square statistic of counts is within five standard deviations of its mean."""
    statistic, freedom = float(((np.asarray(counts) - expected) ** 2 / expected).sum()), np.size(counts) - 1
    return abs(statistic - freedom) < 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("n", [1, 2, 3, 1000, 2**20 + 7])
def test_each_row_once_an_epoch(n):
    for epoch in (0, 1, 7):
        np.testing.assert_array_equal(np.sort(order.shuffled(3, epoch * n, n, n)), np.arange(n))


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(0, 2**50), st.integers(0, 300), st.integers(0, 300))
def test_rows_do_not_depend_on_where_a_call_begins(seed, n, start, before, count):
    whole = order.shuffled(seed, start, before + count, n)
    np.testing.assert_array_equal(whole[before:], order.shuffled(seed, start + before, count, n))
    assert ((whole >= 0) & (whole < n)).all()


def test_blocks_put_together_are_one_call(monkeypatch):
    shuffled, drawn = order.shuffled(1, 5, 1000, 77), order.with_replacement(1, 5, 50, 20, 77)
    monkeypatch.setattr(order, "AT_ONCE", 64)
    np.testing.assert_array_equal(order.shuffled(1, 5, 1000, 77), shuffled)
    np.testing.assert_array_equal(order.with_replacement(1, 5, 50, 20, 77), drawn)


def test_epochs_and_seeds_have_orders_of_their_own():
    n = 1000
    orders = [order.shuffled(seed, epoch * n, n, n) for seed in (0, 1, 2**32 - 1) for epoch in (0, 1, 2**33)]
    for a, b in itertools.combinations(orders, 2):
        assert (a == b).sum() < 12  # of unrelated orders one place is the same on average
    assert all((np.diff(rows) == 1).sum() < 12 for rows in orders)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_every_permutation_of_few_rows_is_as_likely(n):
    epochs = 400 * math.factorial(n)
    permutations = Counter(map(tuple, order.shuffled(0, 0, epochs * n, n).reshape(epochs, n).tolist()))
    assert len(permutations) == math.factorial(n)
    assert is_uniform(list(permutations.values()), 400)


@pytest.mark.parametrize("n", [8, 17, 27, 100])
def test_places_and_neighbours_are_uniform(n):
    epochs = 100 * n
    row_EN = order.shuffled(1, 0, epochs * n, n).reshape(epochs, n)
    for row in (0, n - 1):
        assert is_uniform(np.bincount(np.argmax(row_EN == row, axis=1), minlength=n), epochs / n)
    neighbours = np.bincount((row_EN[:, :-1] * n + row_EN[:, 1:]).reshape(-1), minlength=n * n).reshape(n, n)
    others = neighbours[~np.eye(n, dtype=bool)]
    assert is_uniform(others, epochs * (n - 1) / len(others))
    assert not neighbours.diagonal().any()


@pytest.mark.slow
@pytest.mark.parametrize("n", [1000, 182_580])
def test_places_of_a_row_are_uniform_over_seeds(n):
    first = [int(order.shuffled(seed, 0, 1, n)[0]) for seed in range(2000)]
    last = [int(order.shuffled(seed, n - 1, 1, n)[0]) for seed in range(2000)]
    for rows in (first, last):
        assert is_uniform(np.histogram(rows, bins=20, range=(0, n))[0], 100)


def test_an_epoch_of_a_trillion_rows_needs_no_table():
    n = 2**40
    rows = np.concatenate([order.shuffled(0, start, 3000, n) for start in (0, n // 2, n - 3000)])
    assert len(set(rows.tolist())) == len(rows) and rows.min() >= 0 and rows.max() < n
    assert is_uniform(np.histogram(rows, bins=30, range=(0, n))[0], 300)


WORD = st.integers(0, 2**32 - 1)


@given(WORD, WORD, st.one_of(st.integers(1, 2**33), st.integers(1, 2**40)))
def test_the_high_word_of_a_product_is_exact(high, low, n):
    found = order.multiply_high(np.array([high], np.uint32), np.array([low], np.uint32), n)
    assert found.tolist() == [((high << 32 | low) * n) >> 64]


def test_draws_with_replacement_are_the_high_word_of_jax_numbers():
    """Step and column are folded into the key by Threefry itself, as two 32-bit words."""
    key = prng.derive(5, prng.BATCHES)
    row_KB = order.with_replacement(5, 2**31, 2, 3, 10**9)
    for k, step in enumerate((2**31, 2**31 + 1)):
        of_step = jax.random.key_data(jax.random.fold_in(key, np.uint32(step)))
        for b in range(3):
            first, second = jax.extend.random.threefry_2x32(of_step, np.array([0, b], np.uint32)).tolist()
            assert row_KB[k, b] == ((first << 32 | second) * 10**9) >> 64


def test_draws_with_replacement_have_no_modulo_bias():
    """A remainder of 32 bits would give the first third of 3 * 2^30 rows half of all draws."""
    n = 3 * 2**30
    rows = order.with_replacement(0, 0, 300, 1000, n)
    assert is_uniform(np.histogram(rows, bins=3, range=(0, n))[0], 100_000)
    assert is_uniform(np.histogram(rows % 2**12, bins=64)[0], 300_000 / 64)


@pytest.mark.parametrize("n", [1, 3, 27, 1000])
def test_draws_with_replacement_are_uniform_and_independent(n):
    rows = order.with_replacement(1, 0, 100 * n, 2, n)
    assert n == 1 or is_uniform(np.bincount(rows.reshape(-1), minlength=n), 200)
    if 1 < n < 100:
        rows = order.with_replacement(2, 0, 100 * n * n, 2, n)
        assert is_uniform(np.bincount(rows[:, 0] * n + rows[:, 1], minlength=n * n), 100)
        assert is_uniform(np.bincount(rows[:-1, 0] * n + rows[1:, 0], minlength=n * n), (len(rows) - 1) / n**2)


def test_offsets_of_epochs_are_uniform():
    offset_E = order.offsets(0, np.arange(8000), 16)
    assert is_uniform(np.bincount(offset_E, minlength=16), 500)
    np.testing.assert_array_equal(order.offsets(0, np.arange(100, 120), 16), offset_E[100:120])
    assert not np.array_equal(order.offsets(1, np.arange(100), 16), offset_E[:100])


@pytest.mark.parametrize("n", [0, -1, 2**40 + 1])
def test_sizes_that_cannot_be_ordered_are_refused(n):
    with pytest.raises(ValueError, match="an order of rows wants from 1 to 1,099,511,627,776 rows, got"):
        order.shuffled(0, 0, 1, n)
    with pytest.raises(ValueError, match="an order of rows wants"):
        order.with_replacement(0, 0, 1, 1, n)
