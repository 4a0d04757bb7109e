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
    return chunked_nats(h_ND, out_VD, target_N, chunk_rows(N, V), softcap)


def chunk_rows(N: int, V: int) -> int:
    """Rows of a chunk of at most MOST_LOGITS logits: N, or a power of 2, which divides most batches."""
    rows = max(1, MOST_LOGITS // V)
    return N if rows >= N else 1 << (rows.bit_length() - 1)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def chunked_nats(
    h_ND: jax.Array, out_VD: jax.Array, target_N: jax.Array, rows: int, softcap: float | None
) -> tuple[jax.Array, jax.Array]:
    """`target_nats` by chunks of so many rows, with a gradient of its own (`chunked_gradients`).

    As any function with a gradient of its own, it has no forward-mode derivative.
    """
    return chunked_values(h_ND, out_VD, target_N, rows, softcap)


Saved = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def _forward(
    h_ND: jax.Array, out_VD: jax.Array, target_N: jax.Array, rows: int, softcap: float | None
) -> tuple[tuple[jax.Array, jax.Array], Saved]:
    nats_N, log_z_N = chunked_values(h_ND, out_VD, target_N, rows, softcap)
    return (nats_N, log_z_N), (h_ND, out_VD, target_N, log_z_N)


def _backward(
    rows: int, softcap: float | None, saved: Saved, gradients: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, None]:
    return *chunked_gradients(*saved, *gradients, rows, softcap), None


chunked_nats.defvjp(_forward, _backward)


def chunked_values(
    h_ND: jax.Array, out_VD: jax.Array, target_N: jax.Array, rows: int, softcap: float | None, axis: str | None = None
) -> tuple[jax.Array, jax.Array]:
    """nats_N and log_z_N by chunks of rows.

    With `axis`, the name of an axis of devices in a shard_map, each device has its part of the vocabulary, out_VD being
    the rows of U that are its own, in the devices' order; the targets are those of the whole vocabulary.
    """
    cast_VD = out_VD.astype(h_ND.dtype)

    def chunk(args: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        z_RV = project_logits(args[0], cast_VD, softcap)
        return nats_and_log_z(z_RV, args[1]) if axis is None else _split_nats(z_RV, args[1], axis)

    nats, log_z = jax.lax.map(chunk, (_chunks(h_ND, rows), _chunks(target_N, rows)))
    N = target_N.shape[0]
    return nats.reshape(-1)[:N], log_z.reshape(-1)[:N]


def chunked_gradients(
    h_ND: jax.Array,
    out_VD: jax.Array,
    target_N: jax.Array,
    log_z_N: jax.Array,
    dnats_N: jax.Array,
    dlog_z_N: jax.Array,
    rows: int,
    softcap: float | None,
    axis: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The gradients of h and U, by those of nats_N and log_z_N: dh_ND and dout_VD, `axis` as in `chunked_values`.

    dz = softmax(z) (dnats + dlog_z) - onehot(target) dnats; dU = dz^T h is summed over chunks in float32.
    """
    cast_VD = out_VD.astype(h_ND.dtype)

    def chunk(dout_VD: jax.Array, args: Any) -> tuple[jax.Array, jax.Array]:
        h_RD, target_R, log_z_R, dnats_R, dlog_z_R = args
        z_RV = project_logits(h_RD, cast_VD, softcap)
        dz_RV = jnp.exp(z_RV - log_z_R[:, None]) * (dnats_R + dlog_z_R)[:, None]
        dz_RV -= jnp.where(_is_target(z_RV, target_R, axis), dnats_R[:, None], 0.0)
        if softcap is not None:
            dz_RV *= 1 - jnp.square(z_RV / softcap)
        dz_RV = dz_RV.astype(h_RD.dtype)
        dout_VD += jnp.matmul(dz_RV.T, h_RD, preferred_element_type=jnp.float32)
        dh_RD = dz_RV @ cast_VD
        return dout_VD, dh_RD if axis is None else jax.lax.psum(dh_RD, axis)

    args = [_chunks(x, rows) for x in (h_ND, target_N, log_z_N, dnats_N, dlog_z_N)]
    dout_VD, dh = jax.lax.scan(chunk, jnp.zeros(out_VD.shape, jnp.float32), tuple(args))
    dh_ND = dh.reshape(-1, h_ND.shape[1])[: h_ND.shape[0]]
    return dh_ND, dout_VD.astype(out_VD.dtype)


def _split_nats(z_RV: jax.Array, target_R: jax.Array, axis: str) -> tuple[jax.Array, jax.Array]:
    """nats_R and log_z_R of logits of which each device along an axis has its part of the vocabulary."""
    most_R = jax.lax.pmax(jnp.max(z_RV, axis=1), axis)
    sum_R = jnp.sum(jnp.exp(z_RV - most_R[:, None]), axis=1)
    own_R = jnp.sum(jnp.where(_is_target(z_RV, target_R, axis), z_RV, 0.0), axis=1)
    sum_R, own_R = jax.lax.psum((sum_R, own_R), axis)
    log_z_R = most_R + jnp.log(sum_R)
    return log_z_R - own_R, log_z_R


def _is_target(z_RV: jax.Array, target_R: jax.Array, axis: str | None) -> jax.Array:
    """True for the logit of each row's target, which one device along the axis has."""
    V = z_RV.shape[1]
    first = 0 if axis is None else jax.lax.axis_index(axis) * V
    return jnp.arange(V)[None] + first == target_R[:, None]


def _chunks(x_N: jax.Array, rows: int) -> jax.Array:
    """The array in chunks of rows along a new first axis, filled up with zeros."""
    missing = -x_N.shape[0] % rows
    padded = jnp.pad(x_N, [(0, missing), *[(0, 0)] * (x_N.ndim - 1)])
    return padded.reshape(-1, rows, *x_N.shape[1:])
