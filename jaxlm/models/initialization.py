"""A model's parameters: before training their shapes, and their values from the run's seed; their names and hash."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxlm.config import RunConfig
from jaxlm.devices import compilation
from jaxlm.models.base import LanguageModel, Params, without_buffers
from jaxlm.ops import prng
from jaxlm.runs.directory import hash_of

InitOptimizer = Callable[[Params], Any]


def untrained_params(config: RunConfig, model: LanguageModel[Any]) -> Params:
    """Parameters from the run's seed, in one compiled call."""
    return untrained_state(config, model)[0]


def untrained_state(
    config: RunConfig, model: LanguageModel[Any], init_optimizer: InitOptimizer | None = None
) -> tuple[Params, Any]:
    """The parameters, and what an optimiser begins with for them; None without one."""
    key = prng.derive(config.seed, prng.PARAMETERS)
    if not config.model.trained_by_steps:
        return _init(model, None, key)
    options = compilation.drawing_options(abstract_state(model, init_optimizer)[0])
    return _compiled_init(**options)(model, init_optimizer, key)


def by_name(params: Params) -> dict[str, Any]:
    """All arrays by the names that a model gives them."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/").removeprefix("params/"): leaf for path, leaf in leaves
    }


def content_hash(params: Params) -> str:
    """SHA-256 of the trained parameters: their names, types, shapes and numbers."""
    return hash_of(by_name(without_buffers(params)))


def abstract_params(model: LanguageModel[Any]) -> Params:
    """Shapes and types of the parameters of a model that is trained by steps."""
    return abstract_state(model)[0]


def abstract_state(model: LanguageModel[Any], init_optimizer: InitOptimizer | None = None) -> tuple[Params, Any]:
    """Shapes and types of `untrained_state`."""
    return jax.eval_shape(_traced_init, model, init_optimizer, prng.derive(0, prng.PARAMETERS))


def _init(model: LanguageModel[Any], init_optimizer: InitOptimizer | None, key: jax.Array) -> tuple[Params, Any]:
    params = model.init(key, jnp.zeros((1, model.context or 1), jnp.int32))
    return params, init_optimizer(params) if init_optimizer else None


_traced_init = jax.jit(_init, static_argnums=(0, 1))
"""Traced once for its shapes and for every set of options."""


@functools.cache
def _compiled_init(**options: int | bool) -> Callable[..., tuple[Params, Any]]:
    return jax.jit(lambda *args: _traced_init(*args), static_argnums=(0, 1), compiler_options=options)
