"""A model's parameters before training: their shapes, and their values from the run's seed."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm import keys, sharding
from jaxlm.config import RunConfig
from jaxlm.models.base import LanguageModel, Params


def untrained_params(config: RunConfig, model: LanguageModel[Any]) -> Params:
    """Parameters from the run's seed, in one compiled call."""
    seed = np.asarray(config.seed, np.uint32)
    if not config.model.trained_by_steps:
        return _init(model, seed)
    return _jit_init(**sharding.drawing_options(abstract_params(model)))(model, seed)


def abstract_params(model: LanguageModel[Any]) -> Params:
    """Shapes and types of the parameters of a model that is trained by steps."""
    return jax.eval_shape(_jit_init(), model, np.asarray(0, np.uint32))


def _init(model: LanguageModel[Any], seed: jax.Array | np.ndarray) -> Params:
    return model.init(keys.derive(seed, keys.PARAMETERS), jnp.zeros((1, model.context or 1), jnp.int32))


@functools.cache
def _jit_init(**options: int | bool) -> Callable[[LanguageModel[Any], jax.Array | np.ndarray], Params]:
    return jax.jit(_init, static_argnums=0, compiler_options=options)
