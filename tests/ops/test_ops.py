"""Pure array mathematics against plain Python and float64."""

import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.ops import (
    affine,
    alias_draw,
    causal_attention,
    causal_mean,
    context_index,
    dense,
    dropout,
    inverse_norms,
    layer_norm,
    log_normalize,
    project_lookup,
    sinusoids,
    unembed,
    unit,
    windows,
)
from jaxlm.ops.cpu import SHORT_ROWS
from jaxlm.rean.model import alias_table


def log_softmax64(logits):
    """Log-softmax in float64 NumPy."""
    z = np.asarray(logits, np.float64)
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


@pytest.mark.parametrize("context", [0, 1, 2, 5, 9])
def test_windows_are_the_last_tokens_and_boundaries_before_the_row(context):
    tok_BT = np.random.default_rng(0).integers(1, 27, (3, 5)).astype(np.int32)
    win_BTC = windows(jnp.asarray(tok_BT), context)
    chex.assert_shape(win_BTC, (3, 5, context))
    chex.assert_type(win_BTC, jnp.int32)
    for b, t in itertools.product(range(3), range(5)):
        padded = [0] * context + tok_BT[b].tolist()
        assert win_BTC[b, t].tolist() == padded[t + 1 : t + 1 + context]


def test_windows_of_one_token_are_that_token():
    assert windows(jnp.array([[7]]), 3).tolist() == [[[0, 0, 7]]]


@pytest.mark.parametrize(("vocab_size", "context"), [(2, 5), (3, 3), (5, 1), (4, 0), (27, 2)])
def test_contexts_are_numbered_as_digits_oldest_first(vocab_size, context):
    every_NC = list(itertools.product(range(vocab_size), repeat=context))
    row_N = context_index(jnp.array(every_NC, jnp.int32).reshape(len(every_NC), context), vocab_size)
    chex.assert_type(row_N, jnp.int32)
    assert row_N.tolist() == list(range(vocab_size**context))


@settings(deadline=None)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=7, max_size=7))
def test_log_probabilities_are_float64s_and_add_up_to_one(logits):
    y_NV = log_normalize(jnp.array([logits], jnp.float32))
    np.testing.assert_allclose(y_NV[0], log_softmax64(logits), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(np.exp(np.asarray(y_NV, np.float64)).sum(), 1.0, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e2, 1e4, 1e30])
def test_no_size_of_logits_overflows(scale):
    z_NV = np.random.default_rng(1).normal(size=(50, 27)).astype(np.float32) * np.float32(scale)
    y_NV = log_normalize(jnp.asarray(z_NV))
    chex.assert_tree_all_finite(y_NV)
    np.testing.assert_allclose(y_NV, log_softmax64(z_NV), rtol=1e-6, atol=1e-6)


def test_a_shift_of_all_logits_changes_nothing():
    z_NV = jnp.array([[0.0, 1.0, -2.0], [5.0, 5.0, 5.0]])
    chex.assert_trees_all_equal(log_normalize(z_NV), log_normalize(z_NV + 1024.0))


def test_half_precision_logits_are_normalised_in_float32():
    z_NV = jax.random.normal(jax.random.key(0), (4, 300)).astype(jnp.bfloat16)
    y_NV = log_normalize(z_NV)
    chex.assert_type(y_NV, jnp.float32)
    np.testing.assert_allclose(y_NV, log_softmax64(np.asarray(z_NV.astype(jnp.float32))), rtol=1e-6)


def test_impossible_tokens_stay_impossible_and_leave_the_others_normalised():
    y_NV = log_normalize(jnp.array([[-jnp.inf, 1.0, 2.0], [-jnp.inf, -jnp.inf, 3.0]]))
    assert np.isneginf(y_NV[0, 0])
    np.testing.assert_allclose(y_NV[0, 1:], log_softmax64([1.0, 2.0]), rtol=1e-6)
    assert y_NV[1].tolist() == [-np.inf, -np.inf, 0.0]


def test_a_row_without_a_possible_token_stays_so_and_touches_no_other_row():
    y_NV = log_normalize(jnp.array([[-jnp.inf] * 3, [0.0, 0.0, 0.0]]))
    assert y_NV[0].tolist() == [-np.inf] * 3
    np.testing.assert_allclose(y_NV[1], np.log([1 / 3] * 3), rtol=1e-6)


def test_the_gradient_is_that_of_log_softmax():
    z_V = jax.random.normal(jax.random.key(2), (9,)) * 3
    jacobian = jax.jacobian(lambda z_V: log_normalize(z_V[None])[0])(z_V)
    probabilities = np.exp(log_softmax64(z_V))
    np.testing.assert_allclose(jacobian, np.eye(9) - probabilities[None], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shape", [(3,), (2, 5), (32, 8)])
def test_projected_embeddings_and_their_gradients_are_those_of_indexing(shape):
    """With fewer tokens than the table has rows, and with more."""
    rng = np.random.default_rng(3)
    table_VE, w_EO = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((27, 4), (4, 6)))
    tok = jnp.asarray(rng.integers(0, 27, shape), jnp.int32)
    weight = jnp.asarray(rng.normal(size=(*shape, 6)), jnp.float32)
    np.testing.assert_allclose(project_lookup(table_VE, w_EO, tok), table_VE[tok] @ w_EO, rtol=1e-5, atol=1e-6)
    got, want = (
        jax.grad(lambda t, w, f=f: jnp.vdot(f(t, w), weight), argnums=(0, 1))(table_VE, w_EO)
        for f in (lambda t, w: project_lookup(t, w, tok), lambda t, w: t[tok] @ w)
    )
    chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(3,), (2, 5)])
def test_an_affine_map_takes_the_last_axis_to_all_others_of_its_weights(shape):
    rng = np.random.default_rng(6)
    x, w, bias = (rng.normal(size=size).astype(np.float32) for size in ((*shape, 7), (7, 2, 3), (2, 3)))
    y = affine(jnp.asarray(x), jnp.asarray(w), jnp.asarray(bias))
    np.testing.assert_allclose(y, np.einsum("...i,inh->...nh", x.astype(np.float64), w) + bias, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(affine(jnp.asarray(x), jnp.asarray(w[:, 0])), x @ w[:, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [32, 300])
def test_products_of_few_rows_have_the_values_and_gradients_of_any_product(rows):
    rng = np.random.default_rng(5)
    x_NI, w_IO, weight_NO = (rng.normal(size=shape).astype(np.float32) for shape in ((rows, 7), (7, 5), (rows, 5)))
    for ours, w in ((dense, w_IO), (unembed, np.ascontiguousarray(w_IO.T))):
        plain = x_NI.astype(np.float64) @ w_IO
        y_NO, gradients = jax.vjp(ours, jnp.asarray(x_NI), jnp.asarray(w))
        np.testing.assert_allclose(y_NO, plain, rtol=1e-5, atol=1e-5)
        dx_NI, dw = gradients(jnp.asarray(weight_NO))
        np.testing.assert_allclose(dx_NI, weight_NO.astype(np.float64) @ w_IO.T, rtol=1e-5, atol=1e-5)
        dw_IO = x_NI.T.astype(np.float64) @ weight_NO
        np.testing.assert_allclose(dw, dw_IO if w is w_IO else dw_IO.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("length", [1, 7, SHORT_ROWS, SHORT_ROWS + 1])
def test_a_causal_mean_is_the_mean_so_far(length):
    x_TBD = np.random.default_rng(4).normal(size=(length, 2, 3)).astype(np.float32)
    y_TBD = causal_mean(jnp.asarray(x_TBD))
    chex.assert_shape(y_TBD, x_TBD.shape)
    for t in range(length):
        np.testing.assert_allclose(y_TBD[t], x_TBD[: t + 1].mean(0), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="3-D"):
        causal_mean(jnp.zeros((2, 3)))


@pytest.mark.parametrize("rate", [0.001, 0.003, 0.15, 0.5])
def test_dropout_drops_as_often_as_it_says_and_keeps_the_mean(rate):
    """Drops of a million elements within 5 standard deviations of the binomial's mean, each key drawing others."""
    size = 1_000_000
    y, same, other = (np.asarray(dropout(jnp.ones(size), rate, jax.random.key(seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(y, same)
    assert (y != other).any()
    np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-6)
    assert abs((y == 0).sum() - rate * size) < 5 * (size * rate * (1 - rate)) ** 0.5


@pytest.mark.slow
def test_a_rate_below_the_resolution_of_the_bits_drops_on_average_what_it_says():
    """1e-5 is 0.66 of 1 / 65536: no element would be dropped by a limit rounded down, half as many again by one rounded
    up. Each call decides between the two.
    """
    calls, size, rate = 400, 20_000, 1e-5
    dropped = jax.vmap(lambda key: jnp.sum(dropout(jnp.ones(size), rate, key) == 0))
    count = float(dropped(jax.random.split(jax.random.key(0), calls)).sum())
    assert abs(count - calls * size * rate) < 5 * (calls * size * rate) ** 0.5


@pytest.mark.parametrize("shape", [(3,), (5, 7)])
def test_dropout_at_rate_0_and_1_keeps_all_and_nothing(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    np.testing.assert_array_equal(dropout(x, 0.0, jax.random.key(1)), x)
    np.testing.assert_array_equal(dropout(x, 1.0, jax.random.key(1)), np.zeros(shape))


def test_sinusoids_are_their_formula():
    p_TD = sinusoids(5, 6)
    assert float(p_TD[3, 2]) == pytest.approx(math.sin(3 / 10000 ** (2 / 6)), abs=1e-6)
    assert float(p_TD[3, 3]) == pytest.approx(math.cos(3 / 10000 ** (2 / 6)), abs=1e-6)
    with pytest.raises(ValueError, match="even width, got 5"):
        sinusoids(3, 5)


def test_a_row_of_zeros_has_no_direction_and_no_gradient():
    x_NE = jnp.array([[0.0, 0.0, 0.0], [3.0, 0.0, 4.0]])
    np.testing.assert_allclose(unit(x_NE), [[0.0, 0.0, 0.0], [0.6, 0.0, 0.8]], rtol=1e-6)
    grad_NE = jax.grad(lambda x_NE: unit(x_NE)[:, 2].sum())(x_NE)
    np.testing.assert_allclose(grad_NE, [[0.0, 0.0, 0.0], [-12 / 125, 0.0, 9 / 125]], rtol=1e-5, atol=1e-7)


def test_the_alias_table_has_the_probabilities_and_is_drawn_from():
    p_V = np.random.default_rng(0).dirichlet(np.ones(50) * 0.2)
    keep_V, alias_V = alias_table(p_V)
    got_V = keep_V.astype(np.float64) / 50
    np.add.at(got_V, alias_V, (1 - keep_V.astype(np.float64)) / 50)
    np.testing.assert_allclose(got_V, p_V, atol=1e-7)
    drawn = np.bincount(alias_draw(jax.random.key(0), jnp.asarray(keep_V), jnp.asarray(alias_V), 200_000), minlength=50)
    assert np.abs(drawn / 200_000 - p_V).max() < 5 * math.sqrt(0.25 / 200_000)


def test_sums_over_half_precision_inputs_run_in_float32():
    """A mean so far, a norm and a normalisation of bf16 numbers are float64's of the same numbers, but for a rounding
    of the result to the type it has.
    """
    x_TBD = jnp.asarray(np.random.default_rng(7).normal(1.0, 1.0, (100, 2, 3)), jnp.bfloat16)
    x64_TBD = np.asarray(x_TBD.astype(jnp.float32), np.float64)
    mean64_TBD = np.cumsum(x64_TBD, axis=0) / np.arange(1, 101)[:, None, None]
    assert causal_mean(x_TBD).dtype == jnp.bfloat16
    np.testing.assert_allclose(causal_mean(x_TBD).astype(jnp.float32), mean64_TBD, rtol=2**-8)
    np.testing.assert_allclose(causal_mean(x_TBD.astype(jnp.float32)), mean64_TBD, rtol=1e-5, atol=1e-6)
    row_VE = x_TBD.reshape(2, 300)
    row64_VE = x64_TBD.reshape(2, 300)
    inverse_V = inverse_norms(row_VE)
    chex.assert_type(inverse_V, jnp.float32)
    np.testing.assert_allclose(inverse_V, 1 / np.linalg.norm(row64_VE, axis=1), rtol=1e-6)
    unit_VE = row64_VE / np.linalg.norm(row64_VE, axis=1, keepdims=True)
    np.testing.assert_allclose(unit(row_VE).astype(jnp.float32), unit_VE, rtol=2**-8)
    one_E, zero_E = jnp.ones(300), jnp.zeros(300)
    normed64_VE = (row64_VE - row64_VE.mean(1, keepdims=True)) / np.sqrt(row64_VE.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(
        layer_norm(row_VE, one_E, zero_E).astype(jnp.float32), normed64_VE, rtol=2**-8, atol=1e-6
    )


@pytest.mark.parametrize("length", [SHORT_ROWS, SHORT_ROWS + 1])
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_no_sum_is_a_product_of_less_than_full_precision(platform, length):
    text = jax.jit(causal_mean).trace(jnp.zeros((length, 2, 3))).lower(lowering_platforms=(platform,)).as_text()
    assert "dot_general" not in text or "precision = [HIGHEST, HIGHEST]" in text
    assert ("dot_general" in text) == (platform == "cpu" and length <= SHORT_ROWS)


def test_attention_weighs_half_precision_keys_by_scores_in_float32():
    q_BTNH, k_BTNH, v_BTNH = (
        jnp.asarray(np.random.default_rng(seed).normal(0, 4, (1, 6, 2, 16)), jnp.bfloat16) for seed in (0, 1, 2)
    )
    _, w_BNTS = causal_attention(q_BTNH, k_BTNH, v_BTNH)
    q64, k64 = (np.asarray(x.astype(jnp.float32), np.float64) for x in (q_BTNH, k_BTNH))
    score = np.einsum("btnh,bsnh->bnts", q64, k64) / 4
    score = np.where(np.tri(6, dtype=bool), score, -np.inf)
    want = np.exp(score - score.max(-1, keepdims=True))
    want /= want.sum(-1, keepdims=True)
    assert w_BNTS.dtype == jnp.bfloat16
    np.testing.assert_allclose(w_BNTS.astype(jnp.float32), want, rtol=2**-7, atol=1e-6)
