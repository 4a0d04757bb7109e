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
    alias_draw,
    causal_mean,
    context_index,
    dense,
    dropout,
    log_normalize,
    lookup,
    project_lookup,
    sinusoids,
    unembed,
    unit,
    windows,
)
from jaxlm.ops.linear import FEW_ROWS, MANY_ROWS, SHORT_ROWS
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


@pytest.mark.parametrize("width", [4, 6])
@pytest.mark.parametrize("shape", [(3,), (2, 5), (MANY_ROWS // 8, 8), (MANY_ROWS, 3)])
def test_embeddings_and_their_gradients_are_those_of_indexing(shape, width):
    rng = np.random.default_rng(3)
    table_VE, w_EO = (
        jnp.asarray(rng.normal(size=(27, width)), jnp.float32),
        jnp.asarray(rng.normal(size=(width, 6)), jnp.float32),
    )
    tok = jnp.asarray(rng.integers(0, 27, shape), jnp.int32)
    weight = jnp.asarray(rng.normal(size=(*shape, 6)), jnp.float32)
    for ours, plain in (
        (lambda t, w: lookup(t, tok) @ w, lambda t, w: t[tok] @ w),
        (lambda t, w: project_lookup(t, w, tok), lambda t, w: t[tok] @ w),
    ):
        np.testing.assert_allclose(ours(table_VE, w_EO), plain(table_VE, w_EO), rtol=1e-5, atol=1e-6)
        got, want = (
            jax.grad(lambda t, w, f=f: jnp.vdot(f(t, w), weight), argnums=(0, 1))(table_VE, w_EO) for f in (ours, plain)
        )
        chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [32, FEW_ROWS + 1])
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


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(3,), (99, 101)])
def test_dropout_keeps_its_share_and_the_mean(rate, shape):
    y = np.asarray(dropout(jnp.ones(shape), rate, jax.random.key(1)))
    kept = round((1 - rate) * 256) / 256
    assert set(np.unique(y).tolist()) <= {0.0, np.float32(1 / max(kept, 1 / 256)).item()}
    assert abs(y.astype(bool).mean() - kept) <= 5 * (kept * (1 - kept) / y.size) ** 0.5
    np.testing.assert_array_equal(y, dropout(jnp.ones(shape), rate, jax.random.key(1)))
    assert rate in (0, 1) or y.size < 100 or (y != np.asarray(dropout(jnp.ones(shape), rate, jax.random.key(2)))).any()


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
