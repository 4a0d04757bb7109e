"""Logical axes: every parameter of every model has them, and a model of the user's own needs none."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import jaxlm
from jaxlm.devices.mesh import RULES, make_mesh, state_sharding
from jaxlm.models.base import WindowModel, axes_of, without_buffers
from jaxlm.word2vec.model import build
from tests.models.test_models import MODELS, model_and_params
from tests.rean import test_rean as rean


def abstract(name: str) -> tuple[Any, dict[str, Any]]:
    """A model, and the shapes of its parameters by name."""
    if name in MODELS:
        return model_and_params(name)
    model = rean.MODELS[name].build()
    return model, jax.eval_shape(model.init, jax.random.key(0), rean.tokens())


@pytest.mark.slow
@pytest.mark.parametrize("name", [*MODELS, *rean.MODELS])
def test_every_parameter_has_an_axis_for_each_dimension_and_no_other_has(name):
    model, params = abstract(name)
    assert {key: len(axes) for key, axes in model.axes.items()} == {
        key: leaf.ndim for key, leaf in without_buffers(params).items()
    }
    assert {axis for axes in model.axes.values() for axis in axes} <= {*RULES, None}


@pytest.mark.parametrize("output", ["negative-sampling", "hierarchical-softmax"])
def test_the_tables_of_word2vec_have_axes(output):
    model = build(jaxlm.Word2vecConfig(output=output, d_embed=4, vocab_size=9))
    params = model.init(jax.random.key(0))
    assert {key: len(axes) for key, axes in model.axes.items()} == {key: leaf.ndim for key, leaf in params.items()}


class Own(nn.Module):
    """A module without axes."""

    @nn.compact
    def __call__(self, ctx_NC: jax.Array) -> jax.Array:
        return nn.Dense(5)(nn.Embed(5, 4)(ctx_NC).reshape(len(ctx_NC), -1))


@dataclasses.dataclass(frozen=True)
class Bare:
    """A model of none of our classes."""


def test_a_model_of_the_users_own_without_axes_is_replicated():
    model = WindowModel(context=2, vocab_size=5, module=Own())
    assert axes_of(model) == axes_of(Bare()) == {}
    params = model.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))
    placed = state_sharding(make_mesh(), params, model.axes)
    assert {leaf.spec for leaf in jax.tree.leaves(placed)} == {PartitionSpec()}
    assert np.isfinite(model.apply(jax.device_put(params, placed), jnp.zeros((1, 3), jnp.int32))).all()
