"""Losses against float64 NumPy."""

import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ive

from jaxlm.ops.losses import (
    contrastive,
    cosine_distance,
    cross_entropy,
    mean_square,
    nats_per_target,
    squared_error,
    von_mises_fisher,
)

few_and_many = pytest.mark.parametrize("n", [40, 300])


def rows(scale=1.0, n=40, vocab_size=27, seed=0):
    random = np.random.default_rng(seed)
    logits_NV = (random.normal(size=(n, vocab_size)) * scale).astype(np.float32)
    return logits_NV, random.integers(0, vocab_size, n).astype(np.int32)


def softmax64(logits_NV):
    z_NV = np.asarray(logits_NV, np.float64)
    p_NV = np.exp(z_NV - z_NV.max(-1, keepdims=True))
    return p_NV / p_NV.sum(-1, keepdims=True)


def nats64(logits_NV, target_N):
    z_NV = np.asarray(logits_NV, np.float64)
    top_N = z_NV.max(-1)
    return top_N + np.log(np.exp(z_NV - top_N[:, None]).sum(-1)) - z_NV[np.arange(len(target_N)), target_N]


@few_and_many
@pytest.mark.parametrize("scale", [0.0, 1e-2, 1.0, 30.0, 1e4])
def test_nats_are_minus_the_log_of_the_softmax(scale, n):
    logits_NV, target_N = rows(scale, n)
    nats_N = nats_per_target(jnp.asarray(logits_NV), jnp.asarray(target_N))
    chex.assert_shape(nats_N, (n,))
    chex.assert_tree_all_finite(nats_N)
    np.testing.assert_allclose(nats_N, nats64(logits_NV, target_N), rtol=1e-6, atol=1e-6)


@few_and_many
def test_the_gradient_of_nats_is_the_softmax_less_the_target(n):
    logits_NV, target_N = rows(3.0, n)
    weight_N = np.random.default_rng(1).normal(size=n).astype(np.float32)
    grad_NV = jax.grad(lambda z_NV: jnp.vdot(nats_per_target(z_NV, jnp.asarray(target_N)), weight_N))(logits_NV)
    expected_NV = (softmax64(logits_NV) - np.eye(27)[target_N]) * weight_N[:, None]
    np.testing.assert_allclose(grad_NV, expected_NV, rtol=1e-5, atol=1e-6)


def test_equal_logits_cost_the_log_of_the_vocabulary():
    nats_N = nats_per_target(jnp.full((3, 27), 1e4), jnp.array([0, 13, 26]))
    np.testing.assert_allclose(nats_N, np.log(27), rtol=1e-6)


def test_half_precision_logits_cost_what_their_float32_values_cost():
    logits_NV, target_N = rows(3.0)
    half_NV = jnp.asarray(logits_NV, jnp.bfloat16)
    nats_N = nats_per_target(half_NV, jnp.asarray(target_N))
    chex.assert_type(nats_N, jnp.float32)
    np.testing.assert_allclose(nats_N, nats64(half_NV.astype(jnp.float32), target_N), rtol=1e-6)


@few_and_many
def test_what_cannot_happen_costs_infinity_and_never_nan(n):
    logits_NV = jnp.full((n, 3), -jnp.inf).at[:2, 1:].set(0.0)
    nats_N = nats_per_target(logits_NV, jnp.zeros(n, jnp.int32).at[:3].set(jnp.array([0, 1, 2])))
    assert nats_N[0] == jnp.inf
    np.testing.assert_allclose(nats_N[1], np.log(2), rtol=1e-6)
    assert nats_N[2] == jnp.inf


def test_cross_entropy_is_a_sum_and_a_count():
    logits_NV, target_N = rows()
    total, count = cross_entropy(jnp.asarray(logits_NV), jnp.asarray(target_N))
    chex.assert_shape([total, count], ())
    chex.assert_type([total, count], jnp.float32)
    np.testing.assert_allclose(total, nats64(logits_NV, target_N).sum(), rtol=1e-6)
    assert count == 40


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.int32, jnp.bool_])
def test_padding_is_not_counted(dtype):
    logits_NV, target_N = rows()
    weight_N = np.arange(40) % 3 > 0
    total, count = cross_entropy(jnp.asarray(logits_NV), jnp.asarray(target_N), jnp.asarray(weight_N, dtype))
    np.testing.assert_allclose(total, nats64(logits_NV, target_N)[weight_N].sum(), rtol=1e-6)
    assert float(count) == weight_N.sum()
    chex.assert_type([total, count], jnp.float32)


def test_weights_scale_what_a_target_costs():
    logits_NV, target_N = rows()
    weight_N = np.random.default_rng(3).uniform(0, 2, 40).astype(np.float32)
    total, count = cross_entropy(jnp.asarray(logits_NV), jnp.asarray(target_N), jnp.asarray(weight_N))
    np.testing.assert_allclose(total, (nats64(logits_NV, target_N) * weight_N).sum(), rtol=1e-6)
    np.testing.assert_allclose(count, weight_N.astype(np.float64).sum(), rtol=1e-6)


@pytest.mark.parametrize("garbage", [-np.inf, np.inf, np.nan])
def test_what_padding_costs_is_never_read(garbage):
    logits_NV, target_N = rows(n=4)
    spoilt_NV = logits_NV.copy()
    spoilt_NV[1] = garbage
    weight_N = jnp.array([1.0, 0.0, 1.0, 1.0])
    expected = cross_entropy(jnp.asarray(logits_NV), jnp.asarray(target_N), weight_N)
    chex.assert_trees_all_equal(cross_entropy(jnp.asarray(spoilt_NV), jnp.asarray(target_N), weight_N), expected)


def test_nothing_but_padding_costs_nothing():
    logits_NV, target_N = rows(n=3)
    total, count = cross_entropy(jnp.asarray(logits_NV), jnp.asarray(target_N), jnp.zeros(3))
    assert (total, count) == (0, 0)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_the_gradient_is_softmax_minus_onehot(scale):
    logits_NV, target_N = rows(scale)
    weight_N = np.array([1.0, 0.0] * 20, np.float32)
    gradient_NV = jax.grad(lambda z: cross_entropy(z, jnp.asarray(target_N), jnp.asarray(weight_N))[0])(
        jnp.asarray(logits_NV)
    )
    expected_NV = (softmax64(logits_NV) - np.eye(27)[target_N]) * weight_N[:, None]
    np.testing.assert_allclose(gradient_NV, expected_NV, rtol=1e-5, atol=1e-6)


def test_the_gradient_passes_impossible_tokens_and_rows_by():
    logits_NV = jnp.array([[-jnp.inf, 1.0, 2.0], [-jnp.inf] * 3])
    weight_N = jnp.array([1.0, 0.0])
    gradient_NV = jax.grad(lambda z: cross_entropy(z, jnp.array([1, 1]), weight_N)[0])(logits_NV)
    p = 1 / (1 + np.exp(1.0))
    np.testing.assert_allclose(gradient_NV, [[0.0, p - 1, 1 - p], [0.0] * 3], rtol=1e-6)


def test_parts_of_a_batch_add_up_to_the_whole():
    logits_NV, target_N = map(jnp.asarray, rows())
    whole = cross_entropy(logits_NV, target_N)
    parts = [cross_entropy(logits_NV[i : i + 10], target_N[i : i + 10]) for i in range(0, 40, 10)]
    chex.assert_trees_all_close(jax.tree.map(lambda *leaves: sum(leaves), *parts), whole, rtol=1e-6)


def test_mean_square_adds_each_arrays_own_mean():
    random = np.random.default_rng(4)
    tree: dict[str, Any] = {
        "a": random.normal(size=(3, 5)),
        "b": {"c": random.normal(size=7), "d": random.normal(size=())},
    }
    expected = sum((leaf**2).mean() for leaf in (tree["a"], *tree["b"].values()))
    np.testing.assert_allclose(mean_square(jax.tree.map(jnp.float32, tree)), expected, rtol=1e-6)
    assert mean_square({}) == 0


@pytest.mark.parametrize("width", [4, 10, 50])
def test_von_mises_fisher_has_nearly_the_gradient_of_its_bessel_functions(width):
    direction = np.ones(width) / width**0.5
    for kappa in (0.5, 5.0, 50.0):
        emb = jnp.asarray(kappa * direction, jnp.float32)
        other = jnp.zeros(width).at[0].set(1.0)
        grad = jax.grad(lambda e: von_mises_fisher(e[None], other[None], jnp.ones(1))[0])(emb)  # noqa: B023
        ratio = ive(width / 2, kappa) / ive(width / 2 - 1, kappa)
        np.testing.assert_allclose(grad, ratio * direction - np.asarray(other), atol=0.02)


@pytest.mark.parametrize("width", [4, 10, 50])
@pytest.mark.parametrize("kappa", [0.5, 5.0, 50.0])
def test_the_von_mises_fisher_gradient_is_amoss_lower_bound_of_the_bessel_ratio(width, kappa):
    emb = jnp.full(width, kappa / width**0.5, jnp.float32)
    grad = jax.grad(lambda e: von_mises_fisher(e[None], jnp.zeros((1, width)), jnp.ones(1))[0])(emb)
    length, v = float(np.linalg.norm(np.asarray(grad, np.float64))), width / 2 - 1
    assert length == pytest.approx(kappa / (v + 0.5 + math.hypot(kappa, v + 1.5)), rel=1e-5)
    assert length <= ive(v + 1, kappa) / ive(v, kappa)


def test_contrastive_is_the_cross_entropy_of_the_own_candidate_among_those_that_are_there():
    score_NK = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    weight_N = np.array([1.0, 0.0, 1.0], np.float32)
    there = [0, 2, 3, 4]
    want = sum(math.log(np.exp(score_NK[n, there]).sum()) - float(score_NK[n, n]) for n in (0, 2))
    total, count = contrastive(jnp.asarray(score_NK), jnp.asarray(weight_N))
    assert float(total) == pytest.approx(want, rel=1e-5)
    assert float(count) == 2


@pytest.mark.parametrize("loss", [cosine_distance, squared_error, von_mises_fisher])
def test_distances_of_half_precision_vectors_are_summed_in_float32(loss):
    """As of the same numbers in float32, which the tests above compare with float64."""
    emb_NE, row_NE = (jax.random.normal(jax.random.key(seed), (300, 64)).astype(jnp.bfloat16) for seed in (0, 1))
    weight_N = (jnp.arange(300) % 3 > 0).astype(jnp.bfloat16)
    total, count = loss(emb_NE, row_NE, weight_N)
    chex.assert_type([total, count], jnp.float32)
    emb64, row64 = (np.asarray(x.astype(jnp.float32), np.float64) for x in (emb_NE, row_NE))
    if loss is cosine_distance:
        want_N = 1 - (emb64 * row64).sum(1) / np.linalg.norm(emb64, axis=1)
    elif loss is squared_error:
        want_N = ((emb64 - row64) ** 2).mean(1)
    else:
        a, b = 31.5, 32.5
        u_N = np.sqrt((emb64**2).sum(1) + b * b)
        want_N = u_N - a * np.log(a + u_N) - (emb64 * row64).sum(1)
    np.testing.assert_allclose(total, want_N[np.arange(300) % 3 > 0].sum(), rtol=1e-5, atol=1e-3)
    assert count == 200
