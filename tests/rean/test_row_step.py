"""A step that updates the rows of a table that its batch touches, against one on the whole table."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlm
from jaxlm.data.rows import Batch
from jaxlm.models.base import BUFFERS
from jaxlm.rean.model import ReanModel
from jaxlm.rean.row_step import make_rean_step
from jaxlm.rean.table import TOUCHED
from jaxlm.training import optim
from jaxlm.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Rows(ReanModel):
    """A model that squares the difference between a row's scaled sum and a target."""

    held: int | None = None

    @property
    def row_table(self) -> str | None:
        return "table" if self.held is None else None

    def touched(self, buffers: Any, tok: jax.Array, target: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.unique(tok, size=tok.size, fill_value=9)

    def on_rows(self, count: int) -> Any:
        return dataclasses.replace(self, held=count)

    def train_loss(self, params: Any, tok: jax.Array, target: jax.Array, weight: Any, key: Any) -> Any:
        place = tok if self.held is None else jnp.searchsorted(params[BUFFERS][TOUCHED], tok)
        square = jnp.square(params["scale"] * params["table"][place].sum(-1) - target)
        return jnp.sum(square), jnp.float32(square.size)


NO_MODULE: Any = None
MODEL = Rows(context=None, vocab_size=9, module=NO_MODULE, treatment="unit")


def loss_of(model: Any, params: Any, batch: Batch, key: Any) -> tuple[jax.Array, jax.Array]:
    return model.train_loss(params, *batch, key)


@pytest.mark.slow
def test_rows_that_a_step_touches_move_as_on_the_whole_table_and_the_others_stand_still():
    """Against a step on the whole table, which decays and moves every row: with moments, clipping, doubled tokens."""
    rng = np.random.default_rng(0)
    params = {"table": jnp.asarray(rng.standard_normal((9, 2)), jnp.float32), "scale": jnp.float32(0.5)}
    settings = jaxlm.OptimConfig("adamw", lr=0.1, weight_decay=0.1, clip=0.5)
    optimizer = optim.transformation(settings, 10)
    moments = jax.tree.map(lambda x: x + jnp.asarray(0.2 if x.ndim else 3, x.dtype), optimizer.init(params))
    state = TrainState(jnp.int32(3), params, moments)
    batch = Batch(jnp.array([[5, 1, 5], [8, 1, 5]]), jnp.ones((2, 3)), None)
    new, (loss, count, _) = jax.jit(make_rean_step(MODEL, loss_of, optimizer))(state, batch, jax.random.key(0))

    def whole(params: Any) -> jax.Array:
        return MODEL.train_loss(params, *batch, None)[0] / 6

    want_loss, grads = jax.value_and_grad(whole)(params)
    updates, moments = optimizer.update(grads, state.opt_state, params)
    want = TrainState(jnp.int32(4), optax.apply_updates(params, updates), moments)
    assert (float(loss), float(count)) == (pytest.approx(float(want_loss), rel=1e-6), 6.0)
    touched, others = [1, 5, 8], [0, 2, 3, 4, 6, 7]
    tables = 0
    for moved, plain, old in zip(*map(jax.tree.leaves, (new, want, state)), strict=True):
        if moved.shape == (9, 2):
            tables += 1
            np.testing.assert_allclose(moved[touched,], plain[touched,], rtol=1e-5)
            np.testing.assert_array_equal(moved[others,], old[others,])
            assert np.all(plain[others,] != old[others,])
        else:
            np.testing.assert_allclose(moved, plain, rtol=1e-5)
    assert tables == 3


def test_a_penalty_on_every_row_moves_every_row():
    params = {"table": jnp.ones((9, 2)), "scale": jnp.float32(0.5)}
    optimizer = optax.sgd(0.1)
    state = TrainState(jnp.int32(0), params, optimizer.init(params))
    batch = Batch(jnp.array([[5]]), jnp.ones((1, 1)), None)
    new, _ = jax.jit(make_rean_step(MODEL, loss_of, optimizer, l2=0.5))(state, batch, jax.random.key(0))
    np.testing.assert_allclose(new.params["table"][0], 1 - 0.1 * 0.5 * 2 / 18, rtol=1e-6)
