"""From the stream to logits and losses over the vocabulary, in chunks of rows where all logits would be too many."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxlm.ops.losses import nats_and_log_z

MOST_LOGITS = 2**25
"""Logits that exist at once at most, 134 MB in float32: a batch with more is taken in chunks of rows."""


def project_logits(h: jax.Array, out_VD: jax.Array, softcap: float | None = None) -> jax.Array:
    """Logits z = h U^T in float32, products in h's dtype; c tanh(z / c) with a soft-cap c. h has any leading shape."""
    z = jnp.matmul(h.reshape(-1, h.shape[-1]), out_VD.astype(h.dtype).T, preferred_element_type=jnp.float32)
    if softcap is not None:
        z = softcap * jnp.tanh(z / softcap)
    return z.reshape(*h.shape[:-1], out_VD.shape[0])


def target_nats(
    h_ND: jax.Array, out_VD: jax.Array, target_N: jax.Array, softcap: float | None = None
) -> tuple[jax.Array, jax.Array]:
    """-log softmax(z)[target] and log sum_v exp(z[v]) of the logits z of each row, nats_N and log_z_N in float32.

    Where a batch has more than MOST_LOGITS logits, they are made a chunk of rows at a time, and again for the gradient.
    """
    N, V = target_N.shape[0], out_VD.shape[0]
    if N * V <= MOST_LOGITS:
        return nats_and_log_z(project_logits(h_ND, out_VD, softcap), target_N)
    rows = max(1, MOST_LOGITS // V)
    rows = min(N, 1 << (rows.bit_length() - 1))  # a power of 2, which divides most batches
    return chunked_nats(h_ND, out_VD, target_N, rows, softcap)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def chunked_nats(
    h_ND: jax.Array, out_VD: jax.Array, target_N: jax.Array, rows: int, softcap: float | None
) -> tuple[jax.Array, jax.Array]:
    """`target_nats` by chunks of so many rows.

    The gradient of U is summed over chunks in float32: with dz = softmax(z) (dn + dlog_z) - onehot(target) dn, it is
    dz^T h. As any function with a gradient of its own, it has no forward-mode derivative.
    """
    return _forward(h_ND, out_VD, target_N, rows, softcap)[0]


Saved = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def _forward(
    h_ND: jax.Array, out_VD: jax.Array, target_N: jax.Array, rows: int, softcap: float | None
) -> tuple[tuple[jax.Array, jax.Array], Saved]:
    cast_VD = out_VD.astype(h_ND.dtype)

    def chunk(args: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return nats_and_log_z(project_logits(args[0], cast_VD, softcap), args[1])

    nats, log_z = jax.lax.map(chunk, (_chunks(h_ND, rows), _chunks(target_N, rows)))
    N = target_N.shape[0]
    nats_N, log_z_N = nats.reshape(-1)[:N], log_z.reshape(-1)[:N]
    return (nats_N, log_z_N), (h_ND, out_VD, target_N, log_z_N)


def _backward(
    rows: int, softcap: float | None, saved: Saved, gradients: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, None]:
    h_ND, out_VD, target_N, log_z_N = saved
    cast_VD = out_VD.astype(h_ND.dtype)

    def chunk(dout_VD: jax.Array, args: Any) -> tuple[jax.Array, jax.Array]:
        h_RD, target_R, log_z_R, dnats_R, dlog_z_R = args
        z_RV = project_logits(h_RD, cast_VD, softcap)
        own_RV = jnp.arange(z_RV.shape[1])[None] == target_R[:, None]
        dz_RV = jnp.exp(z_RV - log_z_R[:, None]) * (dnats_R + dlog_z_R)[:, None]
        dz_RV -= jnp.where(own_RV, dnats_R[:, None], 0.0)
        if softcap is not None:
            dz_RV *= 1 - jnp.square(z_RV / softcap)
        dz_RV = dz_RV.astype(h_RD.dtype)
        dout_VD += jnp.matmul(dz_RV.T, h_RD, preferred_element_type=jnp.float32)
        return dout_VD, dz_RV @ cast_VD

    args = [_chunks(x, rows) for x in (h_ND, target_N, log_z_N, *gradients)]
    dout_VD, dh = jax.lax.scan(chunk, jnp.zeros(out_VD.shape, jnp.float32), tuple(args))
    dh_ND = dh.reshape(-1, h_ND.shape[1])[: h_ND.shape[0]]
    return dh_ND, dout_VD.astype(out_VD.dtype), None


chunked_nats.defvjp(_forward, _backward)


def _chunks(x_N: jax.Array, rows: int) -> jax.Array:
    """The array in chunks of rows along a new first axis, filled up with zeros."""
    missing = -x_N.shape[0] % rows
    padded = jnp.pad(x_N, [(0, missing), *[(0, 0)] * (x_N.ndim - 1)])
    return padded.reshape(-1, rows, *x_N.shape[1:])
