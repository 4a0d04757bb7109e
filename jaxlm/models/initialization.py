"""Parameters before training: their shapes, their values from a seed, and their names."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxlm.config import RunConfig
from jaxlm.devices import compilation
from jaxlm.devices.mesh import state_sharding
from jaxlm.models.base import LanguageModel, Params, axes_of
from jaxlm.ops import prng

InitOptimizer = Callable[[Params], Any]


def untrained_params(config: RunConfig, model: LanguageModel[Any], mesh: Any = None) -> Params:
    """Parameters from the run's seed, in one compiled call; those of a model with axes are drawn where they lie on the
    mesh, if there is one.
    """
    key = prng.derive(config.seed, prng.PARAMETERS)
    if not config.model.trained_by_steps:
        return _init(model, None, key)[0]
    lies = None if mesh is None else (state_sharding(mesh, abstract_state(model)[0], axes_of(model)), None)
    return jax.block_until_ready(init_state(model, None, key, lies)[0])


def init_state(
    model: LanguageModel[Any], init_optimizer: InitOptimizer | None, key: jax.Array, shardings: Any = None
) -> tuple[Params, Any]:
    """Parameters and the optimiser's state (None without one) in one compiled call, laid out by the shardings."""
    options = compilation.drawing_options(abstract_state(model)[0])
    initialize = jax.jit(_init, static_argnums=(0, 1), out_shardings=shardings, compiler_options=options)
    return initialize(model, init_optimizer, key)


def abstract_state(model: LanguageModel[Any], init_optimizer: InitOptimizer | None = None) -> tuple[Params, Any]:
    """Shapes and types of `init_state`, of a model that is trained by steps."""
    return jax.eval_shape(functools.partial(_init, model, init_optimizer), prng.derive(0, prng.PARAMETERS))


def by_name(params: Params) -> dict[str, Any]:
    """All arrays by the names that a model gives them."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/").removeprefix("params/"): leaf for path, leaf in leaves
    }


def _init(model: LanguageModel[Any], init_optimizer: InitOptimizer | None, key: jax.Array) -> tuple[Params, Any]:
    params = model.init(key, jnp.zeros((1, model.context or 1), jnp.int32))
    return params, init_optimizer(params) if init_optimizer else None
