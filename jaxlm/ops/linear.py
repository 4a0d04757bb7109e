"""Products with weights, and means over a text so far, in the form that every platform compiles well.

What a CPU does in another order lies in ops/cpu.py and is chosen when a program is lowered for one.
"""

import jax
import jax.numpy as jnp

from jaxlm.ops import cpu


def affine(x: jax.Array, w: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """The product y = x W + b of x's last axis with W's first; W's other axes, and the bias's, take its place.

    Computed as a product of two matrices, all other axes of x being its rows: XLA's CPU compiler takes a fifth longer
    for a step of the bag of words where x keeps its three axes.
    """
    rows_NO = x.reshape(-1, w.shape[0]) @ w.reshape(w.shape[0], -1)
    if bias is not None:
        rows_NO += jnp.reshape(bias, (1, -1))
    return rows_NO.reshape(*x.shape[:-1], *w.shape[1:])


@jax.custom_vjp
def dense(x_NI: jax.Array, w_IO: jax.Array) -> jax.Array:
    """The product y = x W of a step of few rows, whose gradients a CPU takes in an order of its own: see ops/cpu.py.

    As any function with a gradient of its own, it has no forward-mode derivative (`jax.jvp`, `jax.hessian`).
    """
    return _dense(x_NI, w_IO)


@jax.custom_vjp
def unembed(h_NF: jax.Array, w_VF: jax.Array) -> jax.Array:
    """The product y = h W^T, W having a row for each token; like `dense`, it and its gradients in a CPU's order."""
    return _unembed_forward(h_NF, w_VF)[0]


def _dense(x_NI: jax.Array, w_IO: jax.Array) -> jax.Array:
    return x_NI @ w_IO


def _unembed(h_NF: jax.Array, w_VF: jax.Array) -> jax.Array:
    return jnp.einsum("nf,vf->nv", h_NF, w_VF)


Pair = tuple[jax.Array, jax.Array]


def _dense_forward(x_NI: jax.Array, w_IO: jax.Array) -> tuple[jax.Array, Pair]:
    return _dense(x_NI, w_IO), (x_NI, w_IO)


def _dense_backward(saved: Pair, dy_NO: jax.Array) -> Pair:
    def plain(x_NI: jax.Array, w_IO: jax.Array, dy_NO: jax.Array) -> Pair:
        return jnp.einsum("no,io->ni", dy_NO, w_IO), jnp.einsum("ni,no->io", x_NI, dy_NO)

    return jax.lax.platform_dependent(*saved, dy_NO, cpu=cpu.dense_gradients, default=plain)


def _unembed_forward(h_NF: jax.Array, w_VF: jax.Array) -> tuple[jax.Array, Pair]:
    on_cpu = cpu.unembed if h_NF.shape[0] <= cpu.FEW_ROWS else _unembed
    return jax.lax.platform_dependent(h_NF, w_VF, cpu=on_cpu, default=_unembed), (h_NF, w_VF)


def _unembed_backward(saved: Pair, dy_NV: jax.Array) -> Pair:
    def plain(h_NF: jax.Array, w_VF: jax.Array, dy_NV: jax.Array) -> Pair:
        return dy_NV @ w_VF, jnp.einsum("nv,nf->vf", dy_NV, h_NF)

    on_cpu = cpu.unembed_gradients if dy_NV.shape[0] <= cpu.FEW_ROWS else plain
    return jax.lax.platform_dependent(*saved, dy_NV, cpu=on_cpu, default=plain)


dense.defvjp(_dense_forward, _dense_backward)
unembed.defvjp(_unembed_forward, _unembed_backward)


def project_lookup(table_VE: jax.Array, w_EO: jax.Array, tok: jax.Array) -> jax.Array:
    """table[tok] W, by the way that multiplies fewer rows: all of the table, or those looked up."""
    if table_VE.shape[0] < tok.size:
        return (table_VE @ w_EO)[tok]
    return affine(table_VE[tok], w_EO)


def causal_mean(x_TBD: jax.Array) -> jax.Array:
    """Mean over each position and all before it: y[t, b] = mean(x[:t+1, b]).

    Returns y_TBD in x's dtype; the sum runs in float32. Raises ValueError if x is not 3-D.
    """
    if x_TBD.ndim != 3:
        raise ValueError(f"causal_mean wants x_TBD (3-D), got shape {x_TBD.shape}")

    def plain(x_TBD: jax.Array) -> jax.Array:
        count_T = jnp.arange(1, x_TBD.shape[0] + 1, dtype=jnp.float32)
        return jnp.cumsum(x_TBD, axis=0) / count_T[:, None, None]

    x32_TBD, short = x_TBD.astype(jnp.float32), x_TBD.shape[0] <= cpu.SHORT_ROWS
    on_cpu = cpu.causal_mean if short else plain
    return jax.lax.platform_dependent(x32_TBD, cpu=on_cpu, default=plain).astype(x_TBD.dtype)
