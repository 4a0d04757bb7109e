"""Recurrent cells over a whole sequence, with a weight's gradient as one product at the end, not one at each step.

In every cell the input's part comes ready-made, in_TBG = x W + b, so a step's gradient by it is also the gradient of
h U. Going back in time therefore needs one product with U^T a step; the gradient of U itself is one product over all
steps at the end, of the states with what went back.
"""

from functools import partial

import jax
import jax.numpy as jnp

Arrays = tuple[jax.Array, ...]
Pair = tuple[jax.Array, jax.Array]

UNROLL = 4
"""Steps of a sequence in one turn of the compiled loop."""

_scan = partial(jax.lax.scan, unroll=UNROLL)


def rnn_step(h_BF: jax.Array, in_BF: jax.Array, recurrent_FF: jax.Array) -> jax.Array:
    """The next state h' = tanh(in + h U) (Mikolov et al. 2010 with tanh)."""
    return jnp.tanh(in_BF + h_BF @ recurrent_FF)


def gru_gates(h_BF: jax.Array, in_BG: jax.Array, gates_FG: jax.Array, candidate_FF: jax.Array) -> Arrays:
    """r, z = sigmoid(in_r + h U_r, in_z + h U_z) and c = tanh(in_c + (r h) U_c), the next state being h + z (c - h).

    in_BG holds the parts of r, z and c side by side, gates_FG is U_r and U_z. The reset gate acts on the state before
    the product (Cho et al. 2014, equations 5 to 8).
    """
    F = h_BF.shape[-1]
    gates_BG = jax.nn.sigmoid(in_BG[:, : 2 * F] + h_BF @ gates_FG)
    r_BF, z_BF = gates_BG[:, :F], gates_BG[:, F:]
    return r_BF, z_BF, jnp.tanh(in_BG[:, 2 * F :] + (r_BF * h_BF) @ candidate_FF)


def gru_step(h_BF: jax.Array, in_BG: jax.Array, gates_FG: jax.Array, candidate_FF: jax.Array) -> jax.Array:
    """The next state h' = (1 - z) h + z c."""
    _, z_BF, c_BF = gru_gates(h_BF, in_BG, gates_FG, candidate_FF)
    return h_BF + z_BF * (c_BF - h_BF)


def lstm_gates(h_BF: jax.Array, in_BG: jax.Array, recurrent_FG: jax.Array) -> Arrays:
    """i, f, o = sigmoid and g = tanh of in + h U's four parts (Graves 2013, equations 7 to 10, without peepholes)."""
    F = h_BF.shape[-1]
    all_BG = in_BG + h_BF @ recurrent_FG
    gates_BG = jax.nn.sigmoid(all_BG[:, : 3 * F])
    return gates_BG[:, :F], gates_BG[:, F : 2 * F], gates_BG[:, 2 * F :], jnp.tanh(all_BG[:, 3 * F :])


def lstm_step(h_BF: jax.Array, cell_BF: jax.Array, in_BG: jax.Array, recurrent_FG: jax.Array) -> Pair:
    """The next h' = o tanh(cell') and cell' = f cell + i g."""
    i_BF, f_BF, o_BF, g_BF = lstm_gates(h_BF, in_BG, recurrent_FG)
    cell_BF = f_BF * cell_BF + i_BF * g_BF
    return o_BF * jnp.tanh(cell_BF), cell_BF


@jax.custom_vjp
def rnn(start_BF: jax.Array, in_TBF: jax.Array, recurrent_FF: jax.Array) -> jax.Array:
    """h_TBF, the state after each of T inputs."""
    return _rnn_forward(start_BF, in_TBF, recurrent_FF)[0]


def _rnn_forward(start_BF: jax.Array, in_TBF: jax.Array, recurrent_FF: jax.Array) -> tuple[jax.Array, Arrays]:
    def step(h_BF: jax.Array, in_BF: jax.Array) -> tuple[jax.Array, jax.Array]:
        h_BF = rnn_step(h_BF, in_BF, recurrent_FF)
        return h_BF, h_BF

    _, h_TBF = _scan(step, start_BF, in_TBF)
    return h_TBF, (start_BF, h_TBF, recurrent_FF)


def _rnn_backward(saved: Arrays, dh_TBF: jax.Array) -> Arrays:
    start_BF, h_TBF, recurrent_FF = saved

    def step(back_BF: jax.Array, at: Arrays) -> tuple[jax.Array, jax.Array]:
        dh_BF, h_BF = at
        dz_BF = (dh_BF + back_BF) * (1 - h_BF * h_BF)
        return dz_BF @ recurrent_FF.T, dz_BF

    back_BF, dz_TBF = _scan(step, jnp.zeros_like(start_BF), (dh_TBF, h_TBF), reverse=True)
    return back_BF, dz_TBF, _weight_gradient(_before(start_BF, h_TBF), dz_TBF)


rnn.defvjp(_rnn_forward, _rnn_backward)


@jax.custom_vjp
def gru(start_BF: jax.Array, in_TBG: jax.Array, gates_FG: jax.Array, candidate_FF: jax.Array) -> jax.Array:
    """h_TBF, the state after each of T inputs; see gru_gates."""
    return _gru_forward(start_BF, in_TBG, gates_FG, candidate_FF)[0]


def _gru_forward(
    start_BF: jax.Array, in_TBG: jax.Array, gates_FG: jax.Array, candidate_FF: jax.Array
) -> tuple[jax.Array, tuple[Arrays, Arrays]]:
    def step(h_BF: jax.Array, in_BG: jax.Array) -> tuple[jax.Array, Arrays]:
        r_BF, z_BF, c_BF = gru_gates(h_BF, in_BG, gates_FG, candidate_FF)
        h_BF = h_BF + z_BF * (c_BF - h_BF)
        return h_BF, (h_BF, r_BF, z_BF, c_BF)

    _, (h_TBF, *gates) = _scan(step, start_BF, in_TBG)
    return h_TBF, ((_before(start_BF, h_TBF), *gates), (gates_FG, candidate_FF))


def _gru_backward(saved: tuple[Arrays, Arrays], dh_TBF: jax.Array) -> Arrays:
    states, (gates_FG, candidate_FF) = saved

    def step(back_BF: jax.Array, at: Arrays) -> tuple[jax.Array, Arrays]:
        dh_BF, h_BF, r_BF, z_BF, c_BF = at
        dh_BF = dh_BF + back_BF
        dc_BF = dh_BF * z_BF * (1 - c_BF * c_BF)
        drh_BF = dc_BF @ candidate_FF.T
        dr_BF = drh_BF * h_BF * r_BF * (1 - r_BF)
        dz_BF = dh_BF * (c_BF - h_BF) * z_BF * (1 - z_BF)
        dg_BG = jnp.concatenate([dr_BF, dz_BF], axis=1)
        return dh_BF * (1 - z_BF) + drh_BF * r_BF + dg_BG @ gates_FG.T, (dg_BG, dc_BF)

    h_TBF, r_TBF, *_ = states
    back_BF, (dg_TBG, dc_TBF) = _scan(step, jnp.zeros_like(h_TBF[0]), (dh_TBF, *states), reverse=True)
    return (
        back_BF,
        jnp.concatenate([dg_TBG, dc_TBF], axis=2),
        _weight_gradient(h_TBF, dg_TBG),
        _weight_gradient(r_TBF * h_TBF, dc_TBF),
    )


gru.defvjp(_gru_forward, _gru_backward)


@jax.custom_vjp
def lstm(start_BF: jax.Array, start_cell_BF: jax.Array, in_TBG: jax.Array, recurrent_FG: jax.Array) -> Pair:
    """h_TBF and cell_TBF after each of T inputs; see lstm_gates."""
    return _lstm_forward(start_BF, start_cell_BF, in_TBG, recurrent_FG)[0]


def _lstm_forward(
    start_BF: jax.Array, start_cell_BF: jax.Array, in_TBG: jax.Array, recurrent_FG: jax.Array
) -> tuple[Pair, tuple[Arrays, jax.Array]]:
    def step(state: Pair, in_BG: jax.Array) -> tuple[Pair, Arrays]:
        h_BF, cell_BF = state
        i_BF, f_BF, o_BF, g_BF = lstm_gates(h_BF, in_BG, recurrent_FG)
        cell_BF = f_BF * cell_BF + i_BF * g_BF
        tanh_BF = jnp.tanh(cell_BF)
        h_BF = o_BF * tanh_BF
        return (h_BF, cell_BF), (h_BF, cell_BF, tanh_BF, i_BF, f_BF, o_BF, g_BF)

    _, (h_TBF, cell_TBF, *gates) = _scan(step, (start_BF, start_cell_BF), in_TBG)
    before = _before(start_BF, h_TBF), _before(start_cell_BF, cell_TBF)
    return (h_TBF, cell_TBF), ((*before, *gates), recurrent_FG)


def _lstm_backward(saved: tuple[Arrays, jax.Array], d: Pair) -> Arrays:
    states, recurrent_FG = saved

    def step(back: Pair, at: Arrays) -> tuple[Pair, jax.Array]:
        dh_BF, dcell_BF, _, cell_BF, tanh_BF, i_BF, f_BF, o_BF, g_BF = at
        dh_BF = dh_BF + back[0]
        dcell_BF = dcell_BF + back[1] + dh_BF * o_BF * (1 - tanh_BF * tanh_BF)
        di_BF = dcell_BF * g_BF * i_BF * (1 - i_BF)
        df_BF = dcell_BF * cell_BF * f_BF * (1 - f_BF)
        do_BF = dh_BF * tanh_BF * o_BF * (1 - o_BF)
        dg_BF = dcell_BF * i_BF * (1 - g_BF * g_BF)
        dz_BG = jnp.concatenate([di_BF, df_BF, do_BF, dg_BF], axis=1)
        return (dz_BG @ recurrent_FG.T, dcell_BF * f_BF), dz_BG

    zero_BF = jnp.zeros_like(states[0][0])
    back, dz_TBG = _scan(step, (zero_BF, zero_BF), (*d, *states), reverse=True)
    return (*back, dz_TBG, _weight_gradient(states[0], dz_TBG))


lstm.defvjp(_lstm_forward, _lstm_backward)


def _before(start_BF: jax.Array, h_TBF: jax.Array) -> jax.Array:
    """The state that each step began with."""
    return jnp.concatenate([start_BF[None], h_TBF[:-1]])


def _weight_gradient(x_TBI: jax.Array, dy_TBO: jax.Array) -> jax.Array:
    """The gradient of W in y = x W, over all steps and rows."""
    return x_TBI.reshape(-1, x_TBI.shape[2]).T @ dy_TBO.reshape(-1, dy_TBO.shape[2])
