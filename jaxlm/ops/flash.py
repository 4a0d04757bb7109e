"""Attention by fused kernels, which never hold the weights: cuDNN's on NVIDIA, JAX's splash attention on TPU."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LANES = 128
"""Splash attention's blocks have a multiple of so many positions."""
BLOCKS = (512, 256, LANES)
"""Sizes of its blocks, the largest that divides a length is taken: small ones read keys more often."""


def not_by_cudnn(head_width: int, dtype: np.dtype, capability: float) -> str | None:
    """Why cuDNN's flash attention cannot be, in words; None where it can."""
    if dtype not in (jnp.bfloat16, jnp.float16):
        return f"cuDNN wants bfloat16 or float16, got {dtype}"
    if capability < 8:
        return f"cuDNN wants compute capability 8.0, got {capability}"
    widest = 256 if capability >= 9 else 128
    if head_width % 8 or head_width > widest:
        return f"cuDNN wants heads of a multiple of 8 up to {widest} wide, got {head_width}"
    return None


def not_by_splash(length: int) -> str | None:
    """Why splash attention cannot be, in words; None where it can."""
    return f"splash attention wants {LANES} positions, got {length}" if length < LANES else None


def cudnn(q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, window: int | None) -> jax.Array:
    """Causal attention by cuDNN, each query seeing the last `window` keys. An odd length gets a position behind it."""
    T = q_BTNH.shape[1]
    q_BTNH, k_BTKH, v_BTKH = (_longer(x, 2) for x in (q_BTNH, k_BTKH, v_BTKH))
    before = None if window is None or window >= T else (window - 1, 0)
    y_BTNH = jax.nn.dot_product_attention(
        q_BTNH, k_BTKH, v_BTKH, is_causal=True, local_window_size=before, implementation="cudnn"
    )
    return y_BTNH[:, :T]


def splash(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    window: int | None,
    start_BT: jax.Array | None = None,
    *,
    interpret: bool = False,
) -> jax.Array:
    """Causal attention by splash attention; tokens of other documents, told apart by start_BT, are not seen.

    A length that LANES does not divide gets positions behind it. `interpret` runs the kernel without a TPU.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds

    T, H = q_BTNH.shape[1], q_BTNH.shape[3]
    q_BTNH, k_BTKH, v_BTKH = (_longer(x, LANES) for x in (q_BTNH * H**-0.5, k_BTKH, v_BTKH))
    kernel = _splash_kernel(q_BTNH.shape[1], q_BTNH.shape[2], window if window and window < T else None, interpret)
    heads_first = [jnp.swapaxes(x, 1, 2) for x in (q_BTNH, k_BTKH, v_BTKH)]
    if start_BT is None:
        y_BNTH = jax.vmap(kernel)(*heads_first)
    else:
        document_BT = _longer(start_BT, LANES)
        y_BNTH = jax.vmap(kernel)(*heads_first, SegmentIds(document_BT, document_BT))
    return jnp.swapaxes(y_BNTH, 1, 2)[:, :T]


def _splash_kernel(T: int, N: int, window: int | None, interpret: bool) -> Callable[..., jax.Array]:
    """The kernel of one row: (q_NTH, k_KTH, v_KTH, documents or none) -> y_NTH."""
    from jax.experimental.pallas.ops.tpu import splash_attention

    shape = T, T
    causal, local = splash_attention.CausalMask, splash_attention.LocalMask
    one = causal(shape) if window is None else local(shape, (window - 1, 0), offset=0)
    block = next(size for size in BLOCKS if T % size == 0)
    names = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
    sizes: dict[str, Any] = {f"block_{name}": block for name in names}
    return splash_attention.make_splash_mha(
        splash_attention.MultiHeadMask([one] * N),
        block_sizes=splash_attention.BlockSizes(**sizes),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )


def _longer(x_BT: jax.Array, multiple: int) -> jax.Array:
    """The array with zeros behind its second axis, up to a multiple."""
    missing = -x_BT.shape[1] % multiple
    return jnp.pad(x_BT, [(0, 0), (0, missing), *[(0, 0)] * (x_BT.ndim - 2)]) if missing else x_BT
