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
    if not config.model.trained_by_steps:
        return _init(model, None, np.asarray(config.seed, np.uint32))[0]
    return untrained_state(config, model)[0]


def untrained_state(
    config: RunConfig, model: LanguageModel[Any], init_optimizer: Callable[[Params], Any] | None = None
) -> tuple[Params, Any]:
    """The parameters, and what an optimiser begins with for them; None without one."""
    draw = _jit_init(**sharding.drawing_options(abstract_params(model)))
    return draw(model, init_optimizer, np.asarray(config.seed, np.uint32))


def abstract_params(model: LanguageModel[Any]) -> Params:
    """Shapes and types of the parameters of a model that is trained by steps."""
    return jax.eval_shape(_jit_init(), model, None, np.asarray(0, np.uint32))[0]


def _init(
    model: LanguageModel[Any], init_optimizer: Callable[[Params], Any] | None, seed: jax.Array | np.ndarray
) -> tuple[Params, Any]:
    params = model.init(keys.derive(seed, keys.PARAMETERS), jnp.zeros((1, model.context or 1), jnp.int32))
    return params, init_optimizer(params) if init_optimizer else None


@functools.cache
def _jit_init(**options: int | bool) -> Callable[..., tuple[Params, Any]]:
    return jax.jit(_init, static_argnums=(0, 1), compiler_options=options)
