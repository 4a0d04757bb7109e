"""Causal attention: the plain form, and the choice between it and a device's fused kernel."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxlm.ops import cpu, flash
from jaxlm.ops.target import Target, target

Choice = Literal["auto", "plain", "flash"]
Axes = Literal["skh", "ksh"]
"""The order of a key's or value's axes after the batch: places, heads, width, or heads first."""


class AttentionKind(NamedTuple):
    """The form in which attention is computed, and why."""

    name: Literal["plain", "cudnn", "splash"]
    reason: str


def attention_kind(
    *,
    length: int,
    head_width: int,
    dtype: Any,
    dropout: bool = False,
    softcap: bool = False,
    documents: bool = False,
    choice: Choice = "auto",
    on: Target | None = None,
) -> AttentionKind:
    """The form that `attention` takes for sequences of a length, on a device (None: the one that is traced for).

    cudnn: cuDNN's flash attention on NVIDIA GPUs since Ampere, in bfloat16 or float16, without document masks. splash:
    the Pallas kernel that ships with JAX, on TPUs. plain: everywhere else, and with dropout of attention's weights
    or a soft-cap. A caller who chose flash gets plain with its reason where flash cannot be.
    """
    on = on or target()
    if choice == "plain":
        return AttentionKind("plain", "chosen by model.attention")
    if dropout:
        return AttentionKind("plain", "attention's weights are dropped")
    if softcap:
        return AttentionKind("plain", "scores have a soft-cap")
    if on.platform == "cuda":
        reason = flash.not_by_cudnn(head_width, jnp.dtype(dtype), on.capability)
        reason = reason or ("documents share a row" if documents else None)
        return AttentionKind("plain", reason) if reason else AttentionKind("cudnn", "an NVIDIA GPU")
    if on.platform == "tpu":
        reason = flash.not_by_splash(length)
        return AttentionKind("plain", reason) if reason else AttentionKind("splash", "a TPU")
    return AttentionKind("plain", f"no fused kernel for {on.platform}")


def attention(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    *,
    window: int | None = None,
    softcap: float | None = None,
    start_BT: jax.Array | None = None,
    drop: Callable[[jax.Array], jax.Array] | None = None,
    choice: Choice = "auto",
) -> jax.Array:
    """Causal attention of whole sequences, T = S, in the form that `attention_kind` says; see `causal_attention`.

    Returns y_BTNH.
    """
    kind = attention_kind(
        length=q_BTNH.shape[1],
        head_width=q_BTNH.shape[-1],
        dtype=q_BTNH.dtype,
        dropout=drop is not None,
        softcap=softcap is not None,
        documents=start_BT is not None,
        choice=choice,
    )
    if kind.name == "cudnn":
        return flash.cudnn(q_BTNH, k_BSKH, v_BSKH, window)
    if kind.name == "splash":
        return flash.splash(q_BTNH, k_BSKH, v_BSKH, window, start_BT)
    masks: dict[str, Any] = {"window": window, "softcap": softcap, "start_BT": start_BT, "drop": drop}
    if target().platform == "cpu" and drop is None and q_BTNH.shape[1] >= cpu.LONG_QUERIES:
        return cpu.attention_in_blocks(causal_attention, q_BTNH, k_BSKH, v_BSKH, **masks)
    return causal_attention(q_BTNH, k_BSKH, v_BSKH, **masks)[0]


def causal_attention(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    first: jax.Array | int = 0,
    *,
    window: int | None = None,
    softcap: float | None = None,
    start_BT: jax.Array | None = None,
    drop: Callable[[jax.Array], jax.Array] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """softmax(q k / sqrt(H)) v, where query t, at position first + t, sees the keys up to its own position.

    (Vaswani et al. 2017, equation 1.) `first` may differ from row to row, first_B. N / K heads of queries read each
    head of keys and values (Ainslie et al. 2023). Of the keys before it a query sees those of the last `window`
    positions, its own included, from start[b, t] on. Scores s become c tanh(s / c) with a soft-cap c. `drop` is
    applied to the weights. Returns y_BTNH and the weights before dropout, w_BNTS, both in q's dtype.
    """
    w_BNTS = _weights(_scores(q_BTNH, k_BSKH), q_BTNH, first, window=window, softcap=softcap, start_BT=start_BT)
    return _mixed(w_BNTS if drop is None else drop(w_BNTS), v_BSKH), w_BNTS


def cached_attention(
    q_BTNH: jax.Array,
    k_BKSH: jax.Array,
    v_BKSH: jax.Array,
    first: jax.Array | int = 0,
    *,
    window: int | None = None,
    softcap: float | None = None,
    start_BT: jax.Array | None = None,
) -> jax.Array:
    """`causal_attention` without dropout over keys and values whose places lie side by side in each head.

    A cache is read whole for each token: with the heads between its places a CPU copies it first, which takes 2 to 6
    times as long (8 rows of 512 places, 4 heads of 32: 328 us a layer against 57). Returns y_BTNH.
    """
    masks: dict[str, Any] = {"window": window, "softcap": softcap, "start_BT": start_BT}
    w_BNTS = _weights(_scores(q_BTNH, k_BKSH, "ksh"), q_BTNH, first, **masks)
    return _mixed(w_BNTS, v_BKSH, "ksh")


def _weights(
    w_BNTS: jax.Array,
    q_BTNH: jax.Array,
    first: jax.Array | int,
    *,
    window: int | None,
    softcap: float | None,
    start_BT: jax.Array | None,
) -> jax.Array:
    """The weights of keys by their scores, in q's dtype; see `causal_attention`."""
    T, S = w_BNTS.shape[2:]
    w_BNTS = w_BNTS * q_BTNH.shape[-1] ** -0.5
    if softcap is not None:
        w_BNTS = softcap * jnp.tanh(w_BNTS / softcap)
    position_BT1 = (jnp.reshape(first, (-1, 1)) + jnp.arange(T)[None])[:, :, None]
    place_11S = jnp.arange(S)[None, None]
    sees_BTS = place_11S <= position_BT1
    if window is not None:
        sees_BTS &= place_11S > position_BT1 - window
    if start_BT is not None:
        sees_BTS &= place_11S >= start_BT[:, :, None]
    w_BNTS = jnp.where(sees_BTS[:, None], w_BNTS, -jnp.inf)
    return jax.nn.softmax(w_BNTS, axis=-1).astype(q_BTNH.dtype)


def _scores(q_BTNH: jax.Array, k: jax.Array, axes: Axes = "skh") -> jax.Array:
    """The product of each query and each key of its head, w_BNTS in float32."""
    B, T, N, H = q_BTNH.shape
    K = k.shape[1 + axes.index("k")]
    if K == N:
        keys = axes.replace("k", "n")
        return jnp.einsum(f"btnh,b{keys}->bnts", q_BTNH, k, preferred_element_type=jnp.float32)
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H)
    w_BKGTS = jnp.einsum(f"btkgh,b{axes}->bkgts", q_BTKGH, k, preferred_element_type=jnp.float32)
    return w_BKGTS.reshape(B, N, T, -1)


def _mixed(w_BNTS: jax.Array, v: jax.Array, axes: Axes = "skh") -> jax.Array:
    """The values of each head by the weights, y_BTNH."""
    B, N, T, S = w_BNTS.shape
    K, H = v.shape[1 + axes.index("k")], v.shape[-1]
    if K == N:
        return jnp.einsum(f"bnts,b{axes.replace('k', 'n')}->btnh", w_BNTS, v)
    y_BTKGH = jnp.einsum(f"bkgts,b{axes}->btkgh", w_BNTS.reshape(B, K, N // K, T, S), v)
    return y_BTKGH.reshape(B, T, N, H)
