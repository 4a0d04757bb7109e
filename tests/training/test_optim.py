"""Schedules at their boundaries, and update rules against hand-written NumPy steps."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.cli.train_command import load_config
from jaxlm.config import NgramConfig, OptimConfig
from jaxlm.data.rows import Batch
from jaxlm.errors import UserError
from jaxlm.training.optim import count_parameters, in_steps, schedule, transformation, warmup_note, warmup_steps
from jaxlm.training.state import TrainState
from jaxlm.training.step import language_loss, make_step
from tests.conftest import REPOSITORY

PARAMS = {"w": np.array([[1.0, -2.0], [0.5, 3.0]], np.float32), "b": np.array([0.1, -0.3], np.float32)}


def gradients(steps, seed=0):
    random = np.random.default_rng(seed)
    return [{name: random.normal(size=w.shape).astype(np.float32) for name, w in PARAMS.items()} for _ in range(steps)]


def after(config, grads, steps=None):
    """The parameters after updates by these gradients."""
    optimizer = transformation(config, steps or len(grads))
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = optimizer.init(params)

    @jax.jit
    def updated(params, state, grad):
        updates, state = optimizer.update(grad, state, params)
        return optax.apply_updates(params, updates), state

    for grad in grads:
        params, state = updated(params, state, grad)
    return params


def in_float64():
    return {name: w.astype(np.float64) for name, w in PARAMS.items()}


def test_a_constant_schedule_is_the_learning_rate_at_every_step():
    rate = schedule(OptimConfig(lr=0.3), 100)
    assert [float(rate(step)) for step in (0, 1, 99, 10**6)] == pytest.approx([0.3] * 4)


@pytest.mark.parametrize(("boundary", "steps", "at"), [(0.5, 200, 100), (100, 200, 100), (0.25, 7, 2), (1, 10, 1)])
def test_a_factor_sets_in_at_its_boundary(boundary, steps, at):
    rate = schedule(OptimConfig(lr=0.1, schedule="piecewise", boundaries=(boundary,), factors=(0.1,)), steps)
    values = [float(rate(step)) for step in (0, at - 1, at, at + 1, steps - 1)]
    assert values == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.01], rel=1e-6)


def test_a_boundary_at_the_start_holds_from_the_first_step():
    rate = schedule(OptimConfig(lr=0.1, schedule="piecewise", boundaries=(0,), factors=(0.5,)), 10)
    assert float(rate(0)) == pytest.approx(0.05)


def test_factors_multiply_also_at_one_boundary_and_in_any_order():
    config = OptimConfig(lr=1.0, schedule="piecewise", boundaries=(0.8, 0.5, 50, 10), factors=(0.5, 0.2, 0.1, 3.0))
    rate = schedule(config, 100)
    values = [float(rate(step)) for step in (9, 10, 49, 50, 51, 79, 80)]
    assert values == pytest.approx([1.0, 3.0, 3.0, 0.06, 0.06, 0.06, 0.03], rel=1e-6)


@pytest.mark.parametrize(
    ("place", "steps", "step"), [(0.5, 10, 5), (0.999, 10, 10), (0, 10, 0), (1, 10, 1), (7, 10, 7)]
)
def test_a_place_below_one_is_a_fraction_of_the_run(place, steps, step):
    assert in_steps(place, steps) == step


@pytest.mark.parametrize("warmup", [20, 0.2])
def test_cosine_rises_over_the_warm_up_and_falls_to_the_end_factor(warmup):
    rate = schedule(OptimConfig(lr=0.4, schedule="cosine", warmup=warmup, end_factor=0.1), 100)

    def expected(step):
        if step < 20:
            return 0.4 * step / 20
        return 0.4 * (0.1 + 0.9 * (1 + math.cos(math.pi * (step - 20) / 80)) / 2)

    steps = [0, 1, 10, 19, 20, 21, 60, 99, 100]
    assert [float(rate(step)) for step in steps] == pytest.approx([expected(step) for step in steps], rel=1e-5)
    assert [expected(step) for step in (0, 20, 100)] == pytest.approx([0.0, 0.4, 0.04])


def test_cosine_without_warm_up_starts_at_the_learning_rate_and_ends_at_zero():
    rate = schedule(OptimConfig(lr=0.4, schedule="cosine"), 50)
    assert [float(rate(step)) for step in (0, 25, 50)] == pytest.approx([0.4, 0.2, 0.0], abs=1e-7)


def test_linear_after_a_warm_up_falls_in_a_straight_line():
    rate = schedule(OptimConfig(lr=0.4, schedule="linear", warmup=20, end_factor=0.1), 100)
    steps = [0, 1, 19, 20, 21, 60, 99, 100, 101]
    expected = [0.0, 0.02, 0.38, 0.4, 0.4 - 0.36 / 80, 0.22, 0.04 + 0.36 / 80, 0.04, 0.04]
    assert [float(rate(step)) for step in steps] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("warmup", "cooldown"), [(20, 30), (0.2, 0.3)])
def test_a_stable_rate_lies_between_warm_up_and_cooldown(warmup, cooldown):
    rate = schedule(OptimConfig(lr=0.4, schedule="wsd", warmup=warmup, cooldown=cooldown, end_factor=0.25), 100)
    steps = [0, 1, 19, 20, 21, 69, 70, 71, 99, 100, 101]
    expected = [0.0, 0.02, 0.38, 0.4, 0.4, 0.4, 0.4, 0.39, 0.11, 0.1, 0.1]
    assert [float(rate(step)) for step in steps] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("warmup", "cooldown", "expected"),
    [
        (0, 0.2, [0.4, 0.4, 0.4, 0.2, 0.0]),
        (2, 0, [0.0, 0.4, 0.4, 0.4, 0.4]),
        (0, 0.999, [0.4, 0.32, 0.08, 0.04, 0.0]),
        (2, 8, [0.0, 0.4, 0.1, 0.05, 0.0]),
    ],
)
def test_warm_up_and_cooldown_may_be_none_or_all_of_the_run(warmup, cooldown, expected):
    rate = schedule(OptimConfig(lr=0.4, schedule="wsd", warmup=warmup, cooldown=cooldown), 10)
    assert [float(rate(step)) for step in (0, 2, 8, 9, 10)] == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(("cooldown", "told"), [(0.9, r"got 0\.9 \(90 steps\)$"), (81, "got 81$"), (1000, "got 1000$")])
def test_a_cooldown_that_leaves_no_room_for_the_warm_up_is_refused(cooldown, told):
    with pytest.raises(UserError, match=rf"^optim\.cooldown wants at most the 80 steps after the warm-up, {told}"):
        schedule(OptimConfig(schedule="wsd", warmup=0.2, cooldown=cooldown), 100)


def test_a_share_of_the_run_that_leaves_no_step_after_the_warm_up_is_refused():
    with pytest.raises(UserError, match=r"optim\.warmup wants fewer than the run's 100 steps, got 0\.999"):
        schedule(OptimConfig(schedule="cosine", warmup=0.999), 100)


@pytest.mark.parametrize(
    ("warmup", "steps", "taken", "is_cut"),
    [
        (20, 100, 20, False),
        (21, 100, 20, True),
        (200, 60, 12, True),
        (5, 3, 0, True),
        (0.5, 60, 30, False),
        (0, 9, 0, False),
    ],
)
def test_a_warm_up_in_steps_is_cut_to_a_fifth_of_the_run_and_that_is_told(warmup, steps, taken, is_cut):
    config = OptimConfig(lr=0.4, schedule="cosine", warmup=warmup)
    assert warmup_steps(config, steps) == taken
    rate = schedule(config, steps)
    assert int(np.argmax([float(rate(step)) for step in range(steps + 1)])) == taken
    told = warmup_note(config, steps)
    assert told == ([f"optim.warmup {warmup} is cut to {taken} steps, 20% of the run's {steps}"] if is_cut else [])


@pytest.mark.parametrize("name", ["names_bow", "names_gpt", "names_gru", "names_lstm", "names_rnn", "names_wavenet"])
def test_published_warm_ups_are_not_cut(name):
    config = load_config(REPOSITORY / "configs" / f"{name}.py")
    assert warmup_steps(config.optim, config.last_step) == config.optim.warmup >= 200


def test_sgd_is_plain_descent():
    grads = gradients(3)
    expected = in_float64()
    for grad in grads:
        expected = {name: w - 0.1 * grad[name] for name, w in expected.items()}
    chex.assert_trees_all_close(after(OptimConfig(lr=0.1), grads), expected, rtol=1e-5)


def test_momentum_decays_the_velocity():
    grads = gradients(5)
    expected, velocity = in_float64(), dict.fromkeys(PARAMS, 0.0)
    for grad in grads:
        velocity = {name: 0.9 * velocity[name] + grad[name] for name in PARAMS}
        expected = {name: w - 0.1 * velocity[name] for name, w in expected.items()}
    chex.assert_trees_all_close(after(OptimConfig(lr=0.1, momentum=0.9), grads), expected, rtol=1e-5)


def adamw64(grads, lr, betas, eps, decay):
    """Loshchilov and Hutter (2019), algorithm 2, with the decay scaled by the learning rate."""
    (beta1, beta2), params = betas, in_float64()
    first, second = dict.fromkeys(PARAMS, 0.0), dict.fromkeys(PARAMS, 0.0)
    for t, grad in enumerate(grads, start=1):
        for name, w in params.items():
            first[name] = beta1 * first[name] + (1 - beta1) * grad[name]
            second[name] = beta2 * second[name] + (1 - beta2) * grad[name].astype(np.float64) ** 2
            root = np.sqrt(second[name] / (1 - beta2**t))
            params[name] = w - lr * (first[name] / (1 - beta1**t) / (root + eps) + decay * w)
    return params


@pytest.mark.parametrize(
    ("betas", "eps", "decay"), [((0.9, 0.999), 1e-8, 0.0), ((0.8, 0.95), 0.5, 0.1), ((0.0, 0.5), 1e-8, 1.0)]
)
def test_adamw_is_the_papers_algorithm(betas, eps, decay):
    grads = gradients(6, seed=1)
    config = OptimConfig(name="adamw", lr=0.05, betas=betas, eps=eps, weight_decay=decay)
    chex.assert_trees_all_close(after(config, grads), adamw64(grads, 0.05, betas, eps, decay), rtol=1e-4, atol=1e-6)


def test_only_matrices_decay_where_that_is_asked():
    grads = gradients(4)
    config = OptimConfig("adamw", lr=0.05, weight_decay=0.5, decay="matrices")
    optimizer = transformation(config, 4, {"w": ("embed", "mlp"), "b": ("mlp",)})
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = optimizer.init(params)
    for grad in grads:
        updates, state = optimizer.update(grad, state, params)
        params = optax.apply_updates(params, updates)
    for name, decay in (("w", 0.5), ("b", 0.0)):
        want = adamw64(grads, 0.05, config.betas, config.eps, decay)[name]
        np.testing.assert_allclose(params[name], want, rtol=1e-4, atol=1e-6)


def test_updates_read_the_schedule_from_step_zero():
    config = OptimConfig(lr=1.0, schedule="piecewise", boundaries=(2,), factors=(0.5,))
    ones = {name: np.ones_like(w) for name, w in PARAMS.items()}
    for steps, moved in ((1, 1.0), (2, 2.0), (3, 2.5), (4, 3.0)):
        expected = {name: w - moved for name, w in PARAMS.items()}
        chex.assert_trees_all_close(after(config, [ones] * steps, steps=10), expected, rtol=1e-6)


def test_the_schedule_is_adamws_too():
    config = OptimConfig(name="adamw", lr=1.0, schedule="piecewise", boundaries=(1,), factors=(0.0,))
    grads = gradients(3)
    chex.assert_trees_all_equal(after(config, grads, steps=10), after(config, grads[:1], steps=10))


@pytest.mark.parametrize("clip", [0.5, 1e6])
def test_clipping_limits_the_norm_over_all_parameters(clip):
    (grad,) = gradients(1)
    norm = math.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grad.values()))
    share = min(1.0, clip / norm)
    assert (share < 1) == (clip == 0.5)
    expected = {name: w - 0.1 * share * grad[name] for name, w in in_float64().items()}
    chex.assert_trees_all_close(after(OptimConfig(lr=0.1, clip=clip), [grad]), expected, rtol=1e-5)


def test_gradients_are_clipped_before_the_velocity_takes_them_up():
    grads = [{name: 10.0 * np.ones_like(w) for name, w in PARAMS.items()}] * 2
    clipped = 1.0 / math.sqrt(6)
    expected = {name: w - 0.1 * (clipped + 1.9 * clipped) for name, w in in_float64().items()}
    chex.assert_trees_all_close(after(OptimConfig(lr=0.1, momentum=0.9, clip=1.0), grads), expected, rtol=1e-5)


@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_l2_adds_its_gradient_and_leaves_the_reported_loss(l2):
    config = NgramConfig(vocab_size=5)
    model = config.build()
    ctx_B1, target_B = np.array([[0], [3], [3]]), np.array([1, 2, 4])
    params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    (w_VV,) = (np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(params))
    p_BV = np.exp(w_VV[ctx_B1[:, 0]])
    p_BV /= p_BV.sum(-1, keepdims=True)
    gradient_VV = np.zeros_like(w_VV)
    np.add.at(gradient_VV, ctx_B1[:, 0], (p_BV - np.eye(5)[target_B]) / 3)
    optimizer = transformation(OptimConfig(lr=0.1), 10)
    state = TrainState(step=jnp.int32(0), params=params, opt_state=optimizer.init(params))
    batch = Batch(jnp.asarray(ctx_B1), jnp.asarray(target_B), None)
    state, (loss, count, _) = jax.jit(make_step(model, language_loss, optimizer, l2))(state, batch, jax.random.key(0))
    (moved_VV,) = jax.tree.leaves(state.params)
    np.testing.assert_allclose(moved_VV, w_VV - 0.1 * (gradient_VV + l2 * 2 * w_VV / w_VV.size), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loss, -np.log(p_BV[np.arange(3), target_B]).mean(), rtol=1e-6)
    assert count == 3


def test_parameters_are_counted_over_the_tree():
    assert count_parameters({"a": jnp.zeros((3, 4)), "b": {"c": jnp.zeros(()), "d": jnp.zeros(5)}}) == 18
    assert count_parameters({}) == 0
