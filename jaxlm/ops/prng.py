"""Random keys: one for each purpose, all from the run's seed."""

from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

PARAMETERS, BATCHES, DROPOUT, SAMPLES = range(4)

GENERATOR = "threefry2x32"
TURNS = (13, 15, 26, 6), (17, 29, 16, 24)
"""Bits by which the second word is turned, in even and odd groups of four rounds."""
PARITY = np.uint32(0x1BD11BDA)
"""The third word of the key schedule is the key's two and this."""

Words = tuple[np.ndarray, np.ndarray]
"""Two arrays of uint32: of keys, of counters or of random bits."""


def derive(seed: int, purpose: int) -> jax.Array:
    """The key of a run's seed for one of the purposes above: fold_in(key(seed), purpose).

    Calculated here because a compiled program for it takes a tenth of a second of a start.
    """
    words = np.stack(words_of(seed, purpose))
    return jax.random.wrap_key_data(cast(jax.Array, words), impl=GENERATOR)


def from_seed(seed: int) -> jax.Array:
    """The key of a seed, whatever generator JAX has by default."""
    return jax.random.key(seed, impl=GENERATOR)


def ours(key: jax.Array) -> jax.Array:
    """A key of our generator for any: rows drawn under vmap are not independent with JAX's rbg.

    Another's first two words are taken, which are those of the same seed.
    """
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and str(jax.random.key_impl(key)) == GENERATOR:
        return key
    words = np.asarray(jax.random.key_data(key))[:2]
    return jax.random.wrap_key_data(cast(jax.Array, words), impl=GENERATOR)


def threefry(key: Words, counter: Words) -> Words:
    """Threefry-2x32 with 20 rounds (Salmon et al. 2011, section 3.3): two words of 32 bits for each key and counter."""
    words = (*key, key[0] ^ key[1] ^ PARITY)
    first, second = counter[0] + words[0], counter[1] + words[1]
    for group in range(5):
        for bits in TURNS[group % 2]:
            first = first + second
            second = (second << bits | second >> (32 - bits)) ^ first
        first = first + words[(group + 1) % 3]
        second = second + words[(group + 2) % 3] + np.uint32(group + 1)
    return first, second


def words_of(seed: int, purpose: int) -> Words:
    """The two words of `derive(seed, purpose)`, each an array of shape ()."""
    zero = np.zeros(1, np.uint32)
    first, second = threefry((zero, np.array([seed], np.uint32)), (zero, np.array([purpose], np.uint32)))
    return first.reshape(()), second.reshape(())
