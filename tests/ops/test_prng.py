"""Keys and numbers are JAX's own, though no program is compiled for them."""

import jax
import jax.extend.random
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.ops import prng

WORDS = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("seed", [0, 1, 42, 2**31, 2**32 - 1])
def test_a_key_is_the_seed_with_the_purpose_folded_in(seed):
    for purpose in (prng.PARAMETERS, prng.BATCHES, prng.DROPOUT, prng.SAMPLES):
        expected = jax.random.fold_in(jax.random.key(np.uint32(seed), impl="threefry2x32"), purpose)
        np.testing.assert_array_equal(jax.random.key_data(prng.derive(seed, purpose)), jax.random.key_data(expected))


@given(key=st.tuples(WORDS, WORDS), counter=st.tuples(WORDS, WORDS))
def test_threefry_is_that_of_jax(key, counter):
    key_2, counter_2 = np.array(key, np.uint32), np.array(counter, np.uint32)
    expected = jax.extend.random.threefry_2x32(key_2, counter_2)
    found = prng.threefry((key_2[:1], key_2[1:]), (counter_2[:1], counter_2[1:]))
    np.testing.assert_array_equal(np.concatenate(found), expected)


@jax.jit
def by_jax(key, step_K, low, high):
    return jax.vmap(lambda step: jax.random.randint(jax.random.fold_in(key, step), (3,), low, high))(step_K)


@settings(deadline=None)
@given(seed=WORDS, first=st.integers(0, 2**31), low=st.integers(0, 2**30 - 1), span=st.integers(1, 2**30))
def test_numbers_are_those_of_jax(seed, first, low, span):
    step_K = np.arange(first, first + 2, dtype=np.uint32)
    expected = by_jax(prng.derive(seed, prng.BATCHES), step_K, low, low + span)
    np.testing.assert_array_equal(prng.integers(seed, prng.BATCHES, step_K, 3, low, low + span), expected)


@pytest.mark.parametrize("span", [1, 2, 27, 2**16 - 1, 2**16, 2**16 + 1, 2**31 - 1])
def test_numbers_of_a_narrow_and_of_a_wide_range_are_those_of_jax(span):
    step_K = np.arange(100)
    expected = by_jax(prng.derive(1, prng.BATCHES), step_K, 0, span)
    np.testing.assert_array_equal(prng.integers(1, prng.BATCHES, step_K, 3, 0, span), expected)


@pytest.mark.parametrize("at_once", [10, 3])  # two steps' numbers, and fewer than one's
def test_numbers_drawn_in_parts_are_those_drawn_at_once(monkeypatch, at_once):
    together = prng.integers(1, prng.BATCHES, np.arange(7), 5, 3, 1000)
    monkeypatch.setattr(prng, "AT_ONCE", at_once)
    np.testing.assert_array_equal(prng.integers(1, prng.BATCHES, np.arange(7), 5, 3, 1000), together)
