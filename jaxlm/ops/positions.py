"""Positions of a sequence as vectors."""

import math

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


def rotary_rates(pairs: int, base: float) -> jax.Array:
    """The rate of each pair of a head's numbers, base^(-i / I) radians a position for pair i of I. rate_I, float32."""
    return base ** (-jnp.arange(pairs, dtype=jnp.float32) / pairs)


def llama3_rates(rate_I: jax.Array, factor: float, length: int, low: float, high: float) -> jax.Array:
    """Llama 3.1's rates: those that turn fewer than `low` times within `length` positions divided by `factor`.

    Those that turn more than `high` times stay; between both, with s = (turns - low) / (high - low), the rate is
    s r + (1 - s) r / factor.
    """
    share_I = jnp.clip((rate_I * (length / (2 * math.pi)) - low) / (high - low), 0, 1)
    return share_I * rate_I + (1 - share_I) * rate_I / factor


def yarn_rates(rate_I: jax.Array, base: float, factor: float, length: int, fast: float, slow: float) -> jax.Array:
    """YaRN's rates (Peng et al. 2023, section 3.2): the first pairs stay, the last are divided by `factor`.

    Between pair l, the last that turns more than `fast` times within `length` positions, and pair h, the first that
    turns fewer than `slow` times, the share of r / factor grows linearly from 0 to 1.
    """
    pairs = len(rate_I)

    def pair(turns: float) -> float:
        return pairs * math.log(length / (turns * 2 * math.pi)) / math.log(base)

    first, last = max(math.floor(pair(fast)), 0), min(math.ceil(pair(slow)), 2 * pairs - 1)
    slow_I = jnp.clip((jnp.arange(pairs, dtype=jnp.float32) - first) / max(last - first, 1e-3), 0, 1)
    return (1 - slow_I) * rate_I + slow_I * rate_I / factor


def rotate(x_BTNH: jax.Array, position_BT: jax.Array, rate_I: jax.Array, amplitude: float = 1.0) -> jax.Array:
    """Rotary positions (Su et al. 2021, equation 34): pair i of a head turns by the angle position * rate_I[i].

    A pair is made of numbers i and i + H / 2, as in Llama's weights. The product of a query and a key then depends on
    the distance of their positions alone. Angles are in float32; position_BT may have one row for all. The result is
    multiplied by `amplitude`.
    """
    angle = position_BT[:, :, None, None].astype(jnp.float32) * along_last(rate_I, x_BTNH)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    if amplitude != 1:
        cos, sin = amplitude * cos, amplitude * sin
    a, b = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BTNH.dtype)
