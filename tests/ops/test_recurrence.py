"""The recurrences' own gradients against those that JAX derives from a scan over the cells."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.ops.recurrence import gru, gru_gates, lstm, lstm_gates, lstm_state, rnn, rnn_step

T, B, F = 6, 3, 4
STATE, SQUARE = (B, F), (F, F)


def scan_rnn(start, in_TBG, u):
    return jax.lax.scan(lambda h, x: (rnn_step(h, x, u),) * 2, start, in_TBG)[1]


def scan_gru(start, in_TBG, gates, candidate):
    def step(h, x):
        _, z, c = gru_gates(h, x, gates, candidate)
        return ((1 - z) * h + z * c,) * 2

    return jax.lax.scan(step, start, in_TBG)[1]


def scan_lstm(start, cell, in_TBG, u):
    return jax.lax.scan(lambda at, x: (lstm_state(lstm_gates(at[0], x, u), at[1]),) * 2, (start, cell), in_TBG)[1]


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, T])
@pytest.mark.parametrize(
    ("ours", "plain", "widths", "shapes"),
    [
        (rnn, scan_rnn, 1, [STATE, None, SQUARE]),
        (gru, scan_gru, 3, [STATE, None, (F, 2 * F), SQUARE]),
        (lstm, scan_lstm, 4, [STATE, STATE, None, (F, 4 * F)]),
    ],
    ids=["rnn", "gru", "lstm"],
)
@jax.enable_x64(True)
def test_states_and_gradients_are_those_of_a_plain_scan(ours, plain, widths, shapes, length):
    """In float64, where what the compiler fuses differently is far below the tolerance."""
    rng = np.random.default_rng(0)
    args = [jnp.asarray(rng.normal(size=shape or (length, B, widths * F))) for shape in shapes]
    chex.assert_trees_all_close(ours(*args), plain(*args), rtol=1e-10)
    weights = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), plain(*args))

    def weighted(function):
        return lambda *args: sum(
            jnp.vdot(x, w) for x, w in zip(*map(jax.tree.leaves, (function(*args), weights)), strict=True)
        )

    every = tuple(range(len(args)))
    got, want = (jax.grad(weighted(function), argnums=every)(*args) for function in (ours, plain))
    chex.assert_trees_all_close(got, want, rtol=1e-10)
    assert all(float(jnp.abs(gradient).min()) > 0 for gradient in want)
