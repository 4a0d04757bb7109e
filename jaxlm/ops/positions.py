"""Positions of a sequence as vectors."""

import jax
import jax.numpy as jnp

from jaxlm.ops.norms import along_last


def sinusoids(positions: int, width: int) -> jax.Array:
    """p[t, 2i] = sin(t / 10000^(2i / width)), p[t, 2i + 1] its cosine (Vaswani et al. 2017, section 3.5).

    Returns p_TD. Raises ValueError for an odd width.
    """
    if width % 2:
        raise ValueError(f"sinusoids wants an even width, got {width}")
    angle = jnp.arange(positions, dtype=jnp.float32)[:, None] * 10000.0 ** (-jnp.arange(0, width, 2) / width)[None]
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1).reshape(positions, width)


def rotate(x_BTNH: jax.Array, position_BT: jax.Array, base: float) -> jax.Array:
    """Rotary positions (Su et al. 2021, equation 34): pair i of a head turns by the angle position / base^(2i / H).

    A pair is made of numbers i and i + H / 2, as in Llama's weights. The product of a query and a key then depends on
    the distance of their positions alone. Angles are in float32; position_BT may have one row for all.
    """
    half = x_BTNH.shape[-1] // 2
    rate = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = position_BT[:, :, None, None].astype(jnp.float32) * along_last(rate, x_BTNH)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    a, b = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BTNH.dtype)
