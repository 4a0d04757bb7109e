"""Pure array mathematics: arrays in, arrays out, no Flax."""

import jax
import jax.numpy as jnp

MANY_ROWS, ONE_HOT_ENTRIES = 256, 2**22
"""An embedding's gradient is a product from so many tokens on, with at most so many entries in their one-hot matrix."""
FEW_ROWS = 256
"""Rows up to which `readout` multiplies as `dense` does, and a loss is taken over the logits' columns: at 32 it saves
time, at 8,192 the product takes three times as long."""
SHORT_ROWS = 128
"""Positions up to which a causal mean is a product."""


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
    """Log-softmax in float32: y[n, v] = z[n, v] - log sum_u exp(z[n, u]).

    A row without any possible token (all -inf) stays all -inf instead of nan.
    """
    shifted_NV, log_total_N1 = shift_logits(logits_NV)
    return shifted_NV - log_total_N1


def shift_logits(logits: jax.Array, axis: int = -1) -> tuple[jax.Array, jax.Array]:
    """Logits less the largest of their row, which lies along the axis, so that no exp overflows, and log sum_u exp of
    what that leaves, in float32; of a row that is all -inf, itself and 0.
    """
    z = logits.astype(jnp.float32)
    top = jax.lax.stop_gradient(jnp.max(z, axis=axis, keepdims=True))
    possible = ~jnp.isneginf(top)
    shifted = z - jnp.where(possible, top, 0.0)
    total = jnp.sum(jnp.exp(shifted), axis=axis, keepdims=True)
    return shifted, jnp.log(jnp.where(possible, total, 1.0))


def affine(x: jax.Array, w_IO: jax.Array, bias_O: jax.Array | float = 0.0) -> jax.Array:
    """The product y = x W + b over the last axis, as one of two matrices: all other axes of x are its rows."""
    rows_NO = x.reshape(-1, w_IO.shape[0]) @ w_IO + bias_O
    return rows_NO.reshape(*x.shape[:-1], w_IO.shape[1])


@jax.custom_vjp
def dense(x_NI: jax.Array, w_IO: jax.Array) -> jax.Array:
    """The product y = x W for few rows N, with gradients dx = (W dy^T)^T and dW = x^T dy in the order a CPU likes.

    In the products of a small step most time goes into reading transposed operands: taking the product with the
    weights' rows first, and laying out the transpose of a left factor, saves a fifth of the step of names_mlp
    against what `x @ W` derives. The barriers keep XLA from turning the products round again. As of any function with a
    gradient of its own in JAX, there is no forward-mode derivative (`jax.jvp`, and with it `jax.hessian`).
    """
    return x_NI @ w_IO


@jax.custom_vjp
def readout(h_NF: jax.Array, w_VF: jax.Array) -> jax.Array:
    """The product y = h W^T for few rows N, W having a row for each token; dh = dy W and dW = dy^T h. See `dense`."""
    if h_NF.shape[0] > FEW_ROWS:
        return h_NF @ w_VF.T
    return _laid_out(w_VF @ h_NF.T).T


_laid_out = jax.lax.optimization_barrier


def _dense_forward(x_NI: jax.Array, w_IO: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return dense(x_NI, w_IO), (x_NI, w_IO)


def _dense_backward(saved: tuple[jax.Array, jax.Array], dy_NO: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_NI, w_IO = saved
    return _laid_out(w_IO @ dy_NO.T).T, _laid_out(x_NI.T) @ dy_NO


def _readout_forward(h_NF: jax.Array, w_VF: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return readout(h_NF, w_VF), (h_NF, w_VF)


def _readout_backward(saved: tuple[jax.Array, jax.Array], dy_NV: jax.Array) -> tuple[jax.Array, jax.Array]:
    h_NF, w_VF = saved
    dy_VN = _laid_out(dy_NV.T)
    if h_NF.shape[0] > FEW_ROWS:
        return dy_NV @ w_VF, dy_VN @ h_NF
    return _laid_out(dy_VN.T) @ w_VF, dy_VN @ h_NF  # a loss by column gives dy^T, which is turned once


dense.defvjp(_dense_forward, _dense_backward)
readout.defvjp(_readout_forward, _readout_backward)


def lookup(table_VE: jax.Array, tok: jax.Array) -> jax.Array:
    """table[tok], an embedding for each token of an array of any shape.

    Where the tokens are many and the vocabulary small, the gradient is the product one-hot(tok)^T dy: adding rows one
    after the other, as a scatter does, takes a CPU longer than all other work of a small model. Where they are not, a
    row's width is even but no multiple of 4, and the table is small beside them, the scatter adds rows wider by 2: XLA
    would add two numbers at a time. In both cases there is no forward-mode derivative, as of `dense`.
    """
    V, E = table_VE.shape
    widens = E % 4 == 2 and 4 * tok.size >= V
    return _lookup(table_VE, tok) if widens or _takes_product(table_VE, tok) else table_VE[tok]


def _takes_product(table_VE: jax.Array, tok: jax.Array) -> bool:
    return tok.size >= MANY_ROWS and tok.size * table_VE.shape[0] <= ONE_HOT_ENTRIES


@jax.custom_vjp
def _lookup(table_VE: jax.Array, tok: jax.Array) -> jax.Array:
    return table_VE[tok]


def _lookup_forward(table_VE: jax.Array, tok: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return table_VE[tok], (tok, table_VE)


def _lookup_backward(saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, None]:
    tok, table_VE = saved
    (V, E), tok_N, dy_NE = table_VE.shape, tok.reshape(-1), dy.reshape(-1, table_VE.shape[1])
    if _takes_product(table_VE, tok):
        return (tok_N == jnp.arange(V)[:, None]).astype(dy.dtype) @ dy_NE, None
    padding = -E % 4
    wide_NE = jnp.pad(dy_NE, ((0, 0), (0, padding)))
    return jnp.zeros((V, E + padding), dy.dtype).at[tok_N].add(wide_NE)[:, :E], None


_lookup.defvjp(_lookup_forward, _lookup_backward)


def project_lookup(table_VE: jax.Array, w_EO: jax.Array, tok: jax.Array) -> jax.Array:
    """table[tok] W, by the way that multiplies fewer rows: all of the table, or those looked up."""
    if table_VE.shape[0] < tok.size:
        return lookup(table_VE @ w_EO, tok)
    return lookup(table_VE, tok) @ w_EO


def causal_mean(x_TBD: jax.Array) -> jax.Array:
    """Mean over each position and all before it: y[t, b] = mean(x[:t+1, b]).

    Returns y_TBD in x's dtype; the sum runs in float32. Short rows are multiplied by a triangle of weights 1 / (t + 1),
    which is a single product; long ones are summed up. Raises ValueError if x is not 3-D.
    """
    if x_TBD.ndim != 3:
        raise ValueError(f"causal_mean wants x_TBD (3-D), got shape {x_TBD.shape}")
    (T, B, D), x32 = x_TBD.shape, x_TBD.astype(jnp.float32)
    count_T1 = jnp.arange(1, T + 1, dtype=jnp.float32)[:, None]
    if T <= SHORT_ROWS:
        weight_TT = jnp.tril(jnp.ones((T, T))) / count_T1
        return (weight_TT @ x32.reshape(T, B * D)).reshape(T, B, D).astype(x_TBD.dtype)
    return (jnp.cumsum(x32, axis=0) / count_T1[:, None]).astype(x_TBD.dtype)


def layer_norm(x: jax.Array, scale_D: jax.Array, bias_D: jax.Array, eps: float = 1e-5) -> jax.Array:
    """(x - mean) / sqrt(var + eps) * scale + bias over the last axis, in float32 (Ba et al. 2016, equation 4)."""
    x32 = x.astype(jnp.float32)
    mean = jnp.mean(x32, axis=-1, keepdims=True)
    centered = x32 - mean
    var = jnp.mean(jnp.square(centered), axis=-1, keepdims=True)
    return (centered * jax.lax.rsqrt(var + eps) * scale_D + bias_D).astype(x.dtype)


def inverse_norms(row_VE: jax.Array) -> jax.Array:
    """1 / |row| of each row, and 0 for a row of zeros, in row's dtype. Returns inverse_V (any leading shape)."""
    square = jnp.sum(jnp.square(row_VE), axis=-1)
    return jnp.where(square > 0, jax.lax.rsqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def unit(row_VE: jax.Array) -> jax.Array:
    """Each row divided by its length; a row of zeros stays zero, so that its cosine with everything is 0."""
    return row_VE * inverse_norms(row_VE)[..., None]


def sinusoids(positions: int, width: int) -> jax.Array:
    """p[t, 2i] = sin(t / 10000^(2i / width)), p[t, 2i + 1] its cosine (Vaswani et al. 2017, section 3.5).

    Returns p_TD. Raises ValueError for an odd width.
    """
    if width % 2:
        raise ValueError(f"sinusoids wants an even width, got {width}")
    angle = jnp.arange(positions)[:, None] * 10000.0 ** (-jnp.arange(0, width, 2) / width)
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1).reshape(positions, width)


def alias_draw(key: jax.Array, keep_V: jax.Array, alias_V: jax.Array, count: int) -> jax.Array:
    """`count` independent draws from the distribution of an alias table (Walker 1977), at a cost that V is not in.

    A row i is drawn uniformly, and stays i with probability keep[i], else it becomes alias[i]. Returns index_M.
    """
    row_key, keep_key = jax.random.split(key)
    row_M = jax.random.randint(row_key, (count,), 0, keep_V.shape[0])
    return jnp.where(jax.random.uniform(keep_key, (count,)) < keep_V[row_M], row_M, alias_V[row_M])


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


def dropout(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Elements of x / keep with probability keep = 1 - rate, else 0 (Srivastava et al. 2014, scaled in training).

    A random word decides four elements, a byte each, since drawing it costs a CPU more than all the rest; keep is
    therefore rounded to a 256th, in the scale too.
    """
    kept = round((1 - rate) * 256)
    word = jax.random.bits(key, (-(-x.size // 4),), jnp.uint32)
    byte = jax.lax.bitcast_convert_type(word, jnp.uint8).reshape(-1)[: x.size].reshape(x.shape)
    return jnp.where(byte.astype(jnp.int32) < kept, x * (256 / max(kept, 1)), 0)
