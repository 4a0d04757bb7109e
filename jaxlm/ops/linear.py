"""Products with weights, and embeddings of tokens, in the plain form and in the order that a CPU likes."""

import jax
import jax.numpy as jnp

MANY_ROWS, ONE_HOT_ENTRIES = 256, 2**22
"""An embedding's gradient is a product from so many tokens on, with at most so many entries in their one-hot matrix."""
FEW_ROWS = 256
"""Rows up to which `readout` multiplies as `dense` does, and a loss is taken over the logits' columns: at 32 it saves
time, at 8,192 the product takes three times as long."""
SHORT_ROWS = 128
"""Positions up to which a causal mean is a product."""


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
def unembed(h_NF: jax.Array, w_VF: jax.Array) -> jax.Array:
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


def _unembed_forward(h_NF: jax.Array, w_VF: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return unembed(h_NF, w_VF), (h_NF, w_VF)


def _unembed_backward(saved: tuple[jax.Array, jax.Array], dy_NV: jax.Array) -> tuple[jax.Array, jax.Array]:
    h_NF, w_VF = saved
    dy_VN = _laid_out(dy_NV.T)
    if h_NF.shape[0] > FEW_ROWS:
        return dy_NV @ w_VF, dy_VN @ h_NF
    return _laid_out(dy_VN.T) @ w_VF, dy_VN @ h_NF  # a loss by column gives dy^T, which is turned once


dense.defvjp(_dense_forward, _dense_backward)
unembed.defvjp(_unembed_forward, _unembed_backward)


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
