"""Random keys: one for each purpose, all from the run's seed."""

from functools import partial

import jax
import numpy as np

PARAMETERS, BATCHES, DROPOUT, SAMPLES = range(4)


@partial(jax.jit, static_argnames="purpose")
def derive(seed: int | jax.Array | np.ndarray, purpose: int) -> jax.Array:
    """The key of a run's seed for one of the purposes above: fold_in(key(seed), purpose)."""
    return jax.random.fold_in(jax.random.key(seed), purpose)
