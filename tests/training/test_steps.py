"""Steps: a scan of them is a loop of them, each by the gradient of its batch's mean loss."""

import dataclasses
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
from jaxlm.training.step import StepMetrics, language_loss, make_chunk, make_step
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


@pytest.mark.slow
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


@pytest.mark.slow
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


def padded_batch() -> Batch:
    """Six rows of four predictions, of which micro-batches have 6, 1 and none."""
    tok_BT, target_BT = (jax.random.randint(jax.random.key(seed), (6, 4), 0, 5) for seed in (1, 2))
    count_B = jnp.array([4, 1, 0, 2, 0, 0])
    return Batch(tok_BT, target_BT, (jnp.arange(4)[None] < count_B[:, None]).astype(jnp.float32))


@pytest.mark.parametrize("l2", [0.0, 0.5])
def test_micro_batches_add_up_to_the_whole_batch(l2):
    """The mean over all predictions, not the mean of the micro-batches' means."""
    model, batch = MODEL.filled(5, 9).build(), padded_batch()
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 3), jnp.int32))
    optimizer = optax.sgd(0.2)
    state = TrainState(step=jnp.int32(0), params=params, opt_state=optimizer.init(params))

    def after(loss: Any, batch: Batch, **options: Any) -> Any:
        return jax.jit(make_step(model, loss, optimizer, l2, grad_norm=True, **options))(
            state, batch, jax.random.key(0)
        )

    whole, parts = after(language_loss, batch), after(language_loss, batch, accumulate=3)
    chex.assert_trees_all_close(whole, parts, rtol=1e-5, atol=1e-6)
    assert float(parts[1].predictions) == 7

    def mean_of_means(*given: Any) -> tuple[jax.Array, jax.Array]:
        total, count = language_loss(*given)
        return total / jnp.maximum(count, 1.0), jnp.float32(1.0)

    assert abs(float(after(mean_of_means, batch, accumulate=3)[1].loss - whole[1].loss)) > 1e-2


def test_each_micro_batch_has_its_rows_and_a_dropout_key_of_its_own():
    def loss(model: Any, params: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return params["w"] * batch.target.sum() * jax.random.uniform(key), jnp.float32(batch.target.size)

    optimizer, key = optax.sgd(1.0), jax.random.key(3)
    state = TrainState(step=jnp.int32(0), params={"w": jnp.float32(0)}, opt_state=optimizer.init(None))
    batch = Batch(jnp.zeros((4, 1)), jnp.array([1.0, 10.0, 100.0, 1000.0]), None)
    step = make_step(None, loss, optimizer, accumulate=2)  # type: ignore[arg-type]
    draws = [float(jax.random.uniform(jax.random.fold_in(key, i))) for i in range(2)]
    state, metrics = step(state, batch, key)
    assert float(state.params["w"]) == pytest.approx(-(101 * draws[0] + 1010 * draws[1]) / 4, rel=1e-6)
    assert float(metrics.predictions) == 4


def test_the_norm_in_the_metrics_is_the_gradients_before_clipping():
    model, batch = MODEL.filled(5, 9).build(), padded_batch()
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 3), jnp.int32))
    norms = {}
    for clip in (None, 1e-3):
        optimizer = optim.transformation(jaxlm.OptimConfig(lr=1.0, clip=clip), 1)
        state = TrainState(step=jnp.int32(0), params=params, opt_state=optimizer.init(params))
        after, metrics = jax.jit(make_step(model, language_loss, optimizer, grad_norm=True))(state, batch, None)
        moved = jax.tree.map(jnp.subtract, params, after.params)
        norms[clip] = float(metrics.grad_norm), float(optax.tree.norm(moved))
    assert norms[None] == pytest.approx((norms[None][1],) * 2, rel=1e-4)
    assert norms[1e-3] == pytest.approx((norms[None][0], 1e-3), rel=1e-3)


def test_a_z_loss_pulls_at_the_softmax_sum_and_leaves_the_reported_loss():
    model, batch = MODEL.filled(5, 9).build(), padded_batch()
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 3), jnp.int32))

    assert batch.weight is not None
    weight_BT = batch.weight

    def by_hand(params: Any) -> jax.Array:
        logits_BTV = model.apply(params, batch.tok)
        log_z_BT = jnp.log(jnp.exp(logits_BTV).sum(-1))
        own_BT = jnp.take_along_axis(logits_BTV, batch.target[..., None], -1)[..., 0]
        return (weight_BT * (log_z_BT - own_BT + 0.3 * log_z_BT**2)).sum()

    def total(params: Any, z_loss: float) -> jax.Array:
        return language_loss(model, params, batch, None, z_loss=z_loss)[0]

    plain, value, grads = jax.jit(lambda p: (total(p, 0.0), *jax.value_and_grad(total)(p, 0.3)))(params)
    chex.assert_trees_all_close(grads, jax.jit(jax.grad(by_hand))(params), rtol=1e-4, atol=1e-5)
    assert float(value) == float(plain)


def counting(state: TrainState, batch: Batch, key: Any, buffers: Any) -> tuple[TrainState, StepMetrics]:
    """A step whose parameter counts the steps."""
    state = dataclasses.replace(state, step=state.step + 1, params={"w": state.params["w"] + 1})
    return state, StepMetrics(jnp.float32(0), jnp.float32(1))


def test_the_average_follows_the_parameters_sooner_while_it_is_young():
    state = TrainState(jnp.int32(0), {"w": jnp.float32(0)}, (), ema={"w": jnp.float32(0)})
    chunk = jax.jit(make_chunk(counting, lambda step: 0.1, 0, ema=0.6), static_argnums=3)
    batches = Batch(jnp.zeros((1, 1)), jnp.zeros((1, 1)), None)
    average, seen = 0.0, []
    for step in range(1, 31):
        decay = min(0.6, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * step
        seen.append(average)
    state, _ = chunk(state, batches, None, 10)
    assert state.ema is not None and float(state.ema["w"]) == pytest.approx(seen[9], rel=1e-6)
    state, _ = chunk(state, batches, None, 20)
    assert state.ema is not None and float(state.ema["w"]) == pytest.approx(seen[29], rel=1e-6)


def test_a_gradient_that_is_not_finite_changes_nothing_but_the_counts():
    """Parameters, moments and schedule are those of a run that never met such batches."""

    def loss(model: Any, params: Any, batch: Batch, key: Any) -> tuple[jax.Array, jax.Array]:
        return jnp.sum(params["w"] ** 2 * batch.target), jnp.float32(1)

    settings = jaxlm.OptimConfig("adamw", lr=0.1, schedule="linear", clip=1.0, skip_nonfinite=5)
    optimizer, rate = optim.transformation(settings, 10), optim.schedule(settings, 10)
    params = {"w": jnp.array([1.0, -2.0])}
    state = TrainState(jnp.int32(0), params, optimizer.init(params))
    step = make_step(None, loss, optimizer)  # type: ignore[arg-type]
    chunk = jax.jit(make_chunk(step, rate, 0), static_argnums=3)

    def batches(values: list[float]) -> Batch:
        return Batch(jnp.zeros((len(values), 1)), jnp.array(values)[:, None], None)

    good, plain = chunk(state, batches([1.0, 2.0, 3.0, 4.0]), None, 4)
    bad, metrics = chunk(state, batches([1.0, 2.0, math.nan, math.inf, 3.0, math.nan, 4.0]), None, 7)
    chex.assert_trees_all_equal((bad.params, bad.opt_state.inner_state), (good.params, good.opt_state.inner_state))
    assert metrics.nonfinite_K is not None and metrics.nonfinite_K.tolist() == [0, 0, 1, 2, 0, 1, 0]
    assert (int(bad.step), int(bad.opt_state.total_notfinite)) == (7, 3)
    assert float(metrics.lr) == float(plain.lr) == float(rate(3))
    np.testing.assert_array_equal(np.asarray(metrics.loss_K)[[0, 1, 4, 6]], plain.loss_K)
