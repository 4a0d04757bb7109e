"""Positions of a sequence as vectors."""

import jax
import jax.numpy as jnp


def sinusoids(positions: int, width: int) -> jax.Array:
    """p[t, 2i] = sin(t / 10000^(2i / width)), p[t, 2i + 1] its cosine (Vaswani et al. 2017, section 3.5).

    Returns p_TD. Raises ValueError for an odd width.
    """
    if width % 2:
        raise ValueError(f"sinusoids wants an even width, got {width}")
    angle = jnp.arange(positions, dtype=jnp.float32)[:, None] * 10000.0 ** (-jnp.arange(0, width, 2) / width)[None]
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1).reshape(positions, width)
