"""Random keys: one for each purpose, all from the run's seed."""

from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

PARAMETERS, BATCHES, DROPOUT, SAMPLES = range(4)

GENERATOR = "threefry2x32"
WORD = 2**32 - 1
TURNS = (13, 15, 26, 6), (17, 29, 16, 24)
"""Bits by which the second word is turned, in even and odd groups of four rounds."""
PARITY = 0x1BD11BDA
"""The third word of the key schedule is the key's two and this."""


def derive(seed: int, purpose: int) -> jax.Array:
    """The key of a run's seed for one of the purposes above: fold_in(key(seed), purpose).

    Calculated here because a compiled program for it takes a tenth of a second of a start.
    """
    words = np.array(threefry((0, seed), (0, purpose)), np.uint32)
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


def threefry(key: tuple[int, int], counter: tuple[int, int]) -> tuple[int, int]:
    """Threefry-2x32 with 20 rounds (Salmon et al. 2011, section 3.3): two words of 32 bits for a key and a counter."""
    words = (*key, key[0] ^ key[1] ^ PARITY)
    first, second = (counter[0] + words[0]) & WORD, (counter[1] + words[1]) & WORD
    for group in range(5):
        for bits in TURNS[group % 2]:
            first = (first + second) & WORD
            second = ((second << bits) | (second >> (32 - bits))) & WORD ^ first
        first = (first + words[(group + 1) % 3]) & WORD
        second = (second + words[(group + 2) % 3] + group + 1) & WORD
    return first, second
