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


@settings(deadline=None)
@given(key=st.tuples(WORDS, WORDS), counter=st.tuples(WORDS, WORDS))
def test_threefry_is_that_of_jax(key, counter):
    key_2, counter_2 = np.array(key, np.uint32), np.array(counter, np.uint32)
    expected = jax.extend.random.threefry_2x32(key_2, counter_2)
    found = prng.threefry((key_2[:1], key_2[1:]), (counter_2[:1], counter_2[1:]))
    np.testing.assert_array_equal(np.concatenate(found), expected)
