"""Keys are JAX's own, though no program is compiled for them."""

import jax
import jax.extend.random
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlm import keys

WORDS = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("seed", [0, 1, 42, 2**31, 2**32 - 1])
def test_a_key_is_the_seed_with_the_purpose_folded_in(seed):
    for purpose in (keys.PARAMETERS, keys.BATCHES, keys.DROPOUT, keys.SAMPLES):
        expected = jax.random.fold_in(jax.random.key(np.uint32(seed), impl="threefry2x32"), purpose)
        np.testing.assert_array_equal(jax.random.key_data(keys.derive(seed, purpose)), jax.random.key_data(expected))


@given(key=st.tuples(WORDS, WORDS), counter=st.tuples(WORDS, WORDS))
def test_threefry_is_that_of_jax(key, counter):
    count = np.array(counter, np.uint32)
    expected = jax.extend.random.threefry_2x32(np.array(key, np.uint32), count)
    assert keys.threefry(key, counter) == tuple(np.asarray(expected).tolist())
