"""Steps: a scan of them is a loop of them, each by the gradient of its batch's mean loss."""

import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlm
from jaxlm.data.rows import Batch
from jaxlm.ops import losses
from jaxlm.training import optim
from jaxlm.training.setup import set_up
from jaxlm.training.state import TrainState
from jaxlm.training.step import language_loss, make_step
from tests.conftest import NAMES

MODEL = jaxlm.MlpConfig(d_embed=4, d_hidden=16)


def chunk_of(tmp_path: Any, **changes: Any) -> tuple[Any, TrainState]:
    """The compiled training of a tiny run as a function of (state, K), and a first state."""
    path = tmp_path / "text.txt"
    path.write_text("\n".join(NAMES))
    data = jaxlm.DataConfig(path=str(path), **changes.pop("data", {}))
    config = jaxlm.RunConfig(**{"model": MODEL, "data": data, "steps": 40, "batch_size": 8, **changes})
    setup = set_up(config)
    optimizer, rate = optim.transformation(config.optim, 40), optim.schedule(config.optim, 40)
    train_chunk = setup.compiled_chunk(optimizer, rate)
    params = jax.jit(setup.model.init)(jax.random.key(0), jnp.zeros((1, 3), jnp.int32))
    state = TrainState(step=jnp.int32(0), params=params, opt_state=optimizer.init(params))

    def run(state: TrainState, K: int) -> Any:
        batches = setup.dataset.batches(int(state.step), K)
        return train_chunk(jax.tree.map(jnp.copy, state), batches, {}, K)  # it takes the state's memory

    return run, state


@pytest.mark.parametrize(
    "changes",
    [
        {"optim": jaxlm.OptimConfig(lr=0.3, momentum=0.9, schedule="piecewise", boundaries=(5,), factors=(0.1,))},
        {"optim": jaxlm.OptimConfig("adamw", lr=0.01, schedule="cosine", warmup=3), "data": {"example": "sequence"}},
        {"batch_size": "full"},
    ],
    ids=["windows", "sequences", "full"],
)
def test_a_scan_of_eight_steps_is_eight_steps(tmp_path, changes):
    chunk, state = chunk_of(tmp_path, **changes)
    together, many = chunk(state, 8)
    alone, single = state, []
    for _ in range(8):
        alone, one = chunk(alone, 1)
        single.append(one)
    assert int(together.step) == int(alone.step) == 8
    chex.assert_trees_all_close(together, alone, atol=1e-6)
    np.testing.assert_allclose(many.loss_K, [one.loss_K[0] for one in single], atol=1e-6)
    np.testing.assert_array_equal(many.count_K, [one.count_K[0] for one in single])
    assert float(many.lr) == pytest.approx(float(single[-1].lr))
    if changes.get("batch_size") != "full":
        assert len(set(np.asarray(many.loss_K).tolist())) == 8


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_each_step_drops_something_else(tmp_path, dropout):
    """On the same batch, with a learning rate that moves nothing, across the end of a chunk too."""
    model = jaxlm.GptConfig(context=16, n_layers=1, n_heads=2, d_model=8, dropout=dropout)
    settings: dict[str, Any] = {
        "data": {"example": "sequence"},
        "batch_size": "full",
        "optim": jaxlm.OptimConfig(lr=1e-30),
    }
    chunk, state = chunk_of(tmp_path, model=model, **settings)
    state, first = chunk(state, 2)
    _, second = chunk(state, 2)
    losses = {*np.asarray(first.loss_K).tolist(), *np.asarray(second.loss_K).tolist()}
    assert len(losses) == (4 if dropout else 1)


def test_a_step_is_an_update_by_the_gradient_of_the_mean_loss_and_its_penalty():
    """By hand: p - lr * grad(mean nats + l2 * sum of mean squares); the reported loss is without the penalty."""
    model = MODEL.filled(5, 9).build()
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 3), jnp.int32))
    ctx_BC, target_B = jnp.array([[0, 0, 1], [0, 1, 4], [3, 2, 2]]), jnp.array([2, 0, 4])

    def by_hand(params: Any, l2: float) -> jax.Array:
        logp_BV = jax.nn.log_softmax(model.next_logits(params, ctx_BC))
        return -logp_BV[jnp.arange(3), target_B].mean() + l2 * sum((w**2).mean() for w in jax.tree.leaves(params))

    optimizer = optax.sgd(0.2)
    step = jax.jit(make_step(model, language_loss, optimizer, l2=0.5))
    batch = Batch(ctx_BC, target_B, None)
    state = TrainState(step=jnp.int32(7), params=params, opt_state=optimizer.init(params))
    after, (loss, count, _) = step(state, batch, jax.random.key(0))
    grads = jax.jit(jax.grad(by_hand))(params, 0.5)
    chex.assert_trees_all_close(after.params, jax.tree.map(lambda p, g: p - 0.2 * g, params, grads), atol=1e-6)
    assert float(loss) == pytest.approx(float(jax.jit(by_hand)(params, 0.0)), abs=1e-6)
    assert (int(after.step), float(count)) == (8, 3.0)


def test_padding_does_not_train():
    model = MODEL.filled(5, 9).build()
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 3), jnp.int32))
    optimizer = optax.sgd(0.2)
    step = jax.jit(make_step(model, language_loss, optimizer))
    state = TrainState(step=jnp.int32(0), params=params, opt_state=optimizer.init(params))
    tok_BT, target_BT = jnp.array([[0, 3, 1, 4]]), jnp.array([[3, 1, 2, 2]])
    padded = Batch(tok_BT, target_BT, jnp.array([[1.0, 1.0, 0.0, 0.0]]))
    short = Batch(tok_BT[:, :2], target_BT[:, :2], None)
    one, two = step(state, padded, jax.random.key(0)), step(state, short, jax.random.key(0))
    chex.assert_trees_all_close(one, two, atol=1e-6)


def test_a_loss_is_a_sum_and_a_count():
    total, count = losses.cross_entropy(jnp.zeros((4, 3)), jnp.array([0, 1, 2, 0]), jnp.array([1.0, 1, 0, 1]))
    assert (float(total), float(count)) == (pytest.approx(3 * math.log(3), rel=1e-6), 3.0)
