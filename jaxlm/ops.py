"""Pure array mathematics: arrays in, arrays out, no Flax."""

import jax
import jax.numpy as jnp


def windows(tok_BT: jax.Array, context: int) -> jax.Array:
    """The last `context` tokens up to each position: y[b, t] = tok[b, t - context + 1 : t + 1].

    What lies before the row is the boundary token 0. Returns win_BTC.
    """
    B, T = tok_BT.shape
    if context == 0:
        return jnp.zeros((B, T, 0), tok_BT.dtype)
    padded = jnp.pad(tok_BT, ((0, 0), (context - 1, 0)))
    return jnp.stack([padded[:, c : c + T] for c in range(context)], axis=-1)


def context_index(ctx_NC: jax.Array, vocab_size: int) -> jax.Array:
    """The number of a context among all vocab_size ** C: its tokens read as digits, oldest first. Returns row_N."""
    row_N = jnp.zeros(ctx_NC.shape[0], jnp.int32)
    for c in range(ctx_NC.shape[1]):
        row_N = row_N * vocab_size + ctx_NC[:, c]
    return row_N


def log_normalize(logits_NV: jax.Array) -> jax.Array:
    """Log-softmax in float32: y[n, v] = z[n, v] - log sum_u exp(z[n, u]), shifted by the largest z: no exp overflows.

    A row without any possible token (all -inf) stays all -inf instead of nan.
    """
    z_NV = logits_NV.astype(jnp.float32)
    top_N1 = jax.lax.stop_gradient(jnp.max(z_NV, axis=-1, keepdims=True))
    possible_N1 = ~jnp.isneginf(top_N1)
    shifted_NV = z_NV - jnp.where(possible_N1, top_N1, 0.0)
    total_N1 = jnp.sum(jnp.exp(shifted_NV), axis=-1, keepdims=True)
    return shifted_NV - jnp.log(jnp.where(possible_N1, total_N1, 1.0))


@jax.custom_vjp
def dense(x_NI: jax.Array, w_IO: jax.Array) -> jax.Array:
    """The product y = x W for few rows N, with gradients dx = (W dy^T)^T and dW = x^T dy in the order a CPU likes.

    In the products of a small step most time goes into reading transposed operands: laying x^T out once, and taking the
    product with the larger side's rows first, is a tenth of a whole training step faster than what `x @ W` derives.
    """
    return x_NI @ w_IO


@jax.custom_vjp
def readout(h_NF: jax.Array, w_VF: jax.Array) -> jax.Array:
    """The product y = h W^T for few rows N, W having a row for each token; dh = dy W and dW = dy^T h. See `dense`."""
    return (w_VF @ h_NF.T).T


def _dense_forward(x_NI: jax.Array, w_IO: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return dense(x_NI, w_IO), (x_NI, w_IO)


def _dense_backward(saved: tuple[jax.Array, jax.Array], dy_NO: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_NI, w_IO = saved
    return (w_IO @ dy_NO.T).T, jax.lax.optimization_barrier(x_NI.T) @ dy_NO


def _readout_forward(h_NF: jax.Array, w_VF: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return readout(h_NF, w_VF), (h_NF, w_VF)


def _readout_backward(saved: tuple[jax.Array, jax.Array], dy_NV: jax.Array) -> tuple[jax.Array, jax.Array]:
    h_NF, w_VF = saved
    return dy_NV @ w_VF, jax.lax.optimization_barrier(dy_NV.T) @ h_NF


dense.defvjp(_dense_forward, _dense_backward)
readout.defvjp(_readout_forward, _readout_backward)


def causal_mean(x_BTD: jax.Array) -> jax.Array:
    """Mean over each position and all before it: y[b, t] = mean(x[b, :t+1]).

    Returns y_BTD in x's dtype; the sum runs in float32. Raises ValueError if x is not 3-D.
    """
    if x_BTD.ndim != 3:
        raise ValueError(f"causal_mean wants x_BTD (3-D), got shape {x_BTD.shape}")
    sum_BTD = jnp.cumsum(x_BTD.astype(jnp.float32), axis=1)
    count_T1 = jnp.arange(1, x_BTD.shape[1] + 1, dtype=jnp.float32)[:, None]
    return (sum_BTD / count_T1[None]).astype(x_BTD.dtype)


def layer_norm(x: jax.Array, scale_D: jax.Array, bias_D: jax.Array, eps: float = 1e-5) -> jax.Array:
    """(x - mean) / sqrt(var + eps) * scale + bias over the last axis, in float32 (Ba et al. 2016, equation 4)."""
    x32 = x.astype(jnp.float32)
    mean = jnp.mean(x32, axis=-1, keepdims=True)
    centered = x32 - mean
    var = jnp.mean(jnp.square(centered), axis=-1, keepdims=True)
    return (centered * jax.lax.rsqrt(var + eps) * scale_D + bias_D).astype(x.dtype)


def rnn_step(h_BF: jax.Array, in_BF: jax.Array, recurrent_FF: jax.Array) -> jax.Array:
    """The next state h' = tanh(in + h U), `in` being x W + b (Mikolov et al. 2010 with tanh)."""
    return jnp.tanh(in_BF + h_BF @ recurrent_FF)


def gru_step(h_BF: jax.Array, in_BG: jax.Array, gates_FG: jax.Array, candidate_FF: jax.Array) -> jax.Array:
    """The next state h' = (1 - z) h + z c, with r, z = sigmoid(in_r + h U_r, in_z + h U_z), c = tanh(in_c + (r h) U_c).

    in_BG holds x W + b of r, z and c side by side, gates_FG is U_r and U_z. The reset gate acts on the state before the
    product (Cho et al. 2014, equations 5 to 8).
    """
    F = h_BF.shape[-1]
    gates_BG = jax.nn.sigmoid(in_BG[:, : 2 * F] + h_BF @ gates_FG)
    r_BF, z_BF = gates_BG[:, :F], gates_BG[:, F:]
    c_BF = jnp.tanh(in_BG[:, 2 * F :] + (r_BF * h_BF) @ candidate_FF)
    return h_BF + z_BF * (c_BF - h_BF)


def lstm_step(
    h_BF: jax.Array, cell_BF: jax.Array, in_BG: jax.Array, recurrent_FG: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The next cell' = f cell + i g and h' = o tanh(cell'); i, f, o are sigmoids, g is the tanh of in + h U's parts.

    in_BG holds x W + b of i, f, o and g side by side (Graves 2013, equations 7 to 11, without peepholes).
    """
    F = h_BF.shape[-1]
    all_BG = in_BG + h_BF @ recurrent_FG
    gates_BG = jax.nn.sigmoid(all_BG[:, : 3 * F])
    i_BF, f_BF, o_BF = gates_BG[:, :F], gates_BG[:, F : 2 * F], gates_BG[:, 2 * F :]
    cell_BF = f_BF * cell_BF + i_BF * jnp.tanh(all_BG[:, 3 * F :])
    return o_BF * jnp.tanh(cell_BF), cell_BF


def causal_attention(
    q_BTNH: jax.Array, k_BSNH: jax.Array, v_BSNH: jax.Array, first: jax.Array | int = 0
) -> tuple[jax.Array, jax.Array]:
    """softmax(q k / sqrt(H)) v, where query t, at position first + t, sees the keys up to its own position.

    (Vaswani et al. 2017, equation 1.) Returns y_BTNH and the weights before dropout, w_BNTS, both in q's dtype.
    """
    H, T, S = q_BTNH.shape[-1], q_BTNH.shape[1], k_BSNH.shape[1]
    w_BNTS = jnp.einsum("btnh,bsnh->bnts", q_BTNH, k_BSNH) * H**-0.5
    sees_TS = jnp.arange(S) <= first + jnp.arange(T)[:, None]
    w_BNTS = jax.nn.softmax(jnp.where(sees_TS, w_BNTS.astype(jnp.float32), -jnp.inf), axis=-1).astype(q_BTNH.dtype)
    return jnp.einsum("bnts,bsnh->btnh", w_BNTS, v_BSNH), w_BNTS
