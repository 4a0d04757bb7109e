"""Exact nearest-neighbour and analogy search as pure functions on arrays, batched, on the device of the table."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

BLOCK_SCORES, BLOCK_ROWS = 2**21, (512, 8192)
"""Most scores in a block, and its least and most rows of the table, so that a block stays in a CPU's cache."""
GROUP = 64
"""Scores in a group: the best k of a block are sought among the k groups with the largest maxima."""
COSMUL_EPSILON = 1e-6
"""Keeps the denominator of 3CosMul from 0."""


class BestRows(NamedTuple):
    """The highest-scoring rows of a table for each query, best first; ties are ordered by row."""

    score_BK: jax.Array
    """Scores in descending order."""
    row_BK: jax.Array
    """Row indices; -1, with score -inf, where fewer rows are left than wanted."""


def unit_rows(x_NE: jax.Array) -> jax.Array:
    """Scale rows to length 1, x / |x|, along the last axis; a row of zeros stays zero, so its cosines are 0.

    Each row is divided by its largest magnitude first, so that no square overflows or underflows in float32. Before
    that it is scaled by a power of two, since XLA divides by multiplying with the reciprocal, which underflows at 3e38.
    """
    x_NE = x_NE * jnp.where(_largest(x_NE) > 1, 2.0**-64, 2.0**64)
    most_N1 = _largest(x_NE)
    x_NE = x_NE / jnp.where(most_N1 > 0, most_N1, 1.0)
    length_N1 = jnp.linalg.norm(x_NE, axis=-1, keepdims=True)
    return x_NE / jnp.where(length_N1 > 0, length_N1, 1.0)


def _largest(x_NE: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(x_NE), axis=-1, keepdims=True)


def similarity(x_BE: jax.Array, y_BE: jax.Array) -> jax.Array:
    """Cosine of each pair of rows, from -1 to 1, and 0 if either is zero. Returns cos_B."""
    return jnp.sum(unit_rows(x_BE) * unit_rows(y_BE), axis=-1)


def nearest_rows(unit_VE: jax.Array, query_BE: jax.Array, k: int, exclude_BX: jax.Array | None = None) -> BestRows:
    """Find the k rows with the largest cosine to each query, leaving out those in exclude_BX (-1 excludes none).

    unit_VE has rows of length 1 (or zeros); queries may have any length. The table is read once, block by block, so
    that no array of B x V scores is made. K of the result is min(k, V).
    Raises ValueError if k < 1.
    """
    return _best(unit_VE, unit_rows(query_BE), exclude_BX, k, _cosine)


def analogy_cosadd(unit_VE: jax.Array, abc_B3: jax.Array, k: int) -> BestRows:
    """Complete "a is to b as c is to x" by 3CosAdd: the largest cos(x, b - a + c), over all rows x but a, b and c.

    Levy and Goldberg, Linguistic Regularities in Sparse and Explicit Word Representations (2014), equation 3.
    """
    a_BE, b_BE, c_BE = (unit_VE[abc_B3[:, i]] for i in range(3))
    return nearest_rows(unit_VE, b_BE - a_BE + c_BE, k, abc_B3)


def analogy_cosmul(unit_VE: jax.Array, abc_B3: jax.Array, k: int) -> BestRows:
    """Complete "a is to b as c is to x" by 3CosMul: the largest cos'(x, b) cos'(x, c) / (cos'(x, a) + 1e-6).

    cos' is (1 + cos) / 2, and x is any row but a, b and c. A product keeps one large similarity from deciding alone.
    Levy and Goldberg (2014), equation 4 and footnote 7.
    """
    return _best(unit_VE, unit_VE[abc_B3], abc_B3, k, _cosmul)


def cosine_to_mean(unit_BNE: jax.Array) -> jax.Array:
    """Cosine of each of N unit rows to their mean, lowest for the odd one out. Returns cos_BN."""
    return similarity(unit_BNE, jnp.mean(unit_BNE, axis=1, keepdims=True))


RowScore = Callable[[jax.Array, jax.Array], jax.Array]
"""(query, a block of rows) -> their scores, score_BR."""


def _cosine(query_BE: jax.Array, block_RE: jax.Array) -> jax.Array:
    return jnp.matmul(query_BE, block_RE.T, precision=jax.lax.Precision.HIGHEST)


def _cosmul(abc_B3E: jax.Array, block_RE: jax.Array) -> jax.Array:
    B, _, E = abc_B3E.shape
    cos_B3R = _cosine(abc_B3E.reshape(3 * B, E), block_RE).reshape(B, 3, -1)
    a_BR, b_BR, c_BR = jnp.moveaxis((1 + cos_B3R) / 2, 1, 0)
    return b_BR * c_BR / (a_BR + COSMUL_EPSILON)


@partial(jax.jit, static_argnames=("k", "score"))
def _best(unit_VE: jax.Array, query: jax.Array, exclude_BX: jax.Array | None, k: int, score: RowScore) -> BestRows:
    """Find the k rows with the largest score(query, rows); query's first axis is B."""
    if k < 1:
        raise ValueError(f"nearest_rows wants k >= 1, got {k}")
    (V, E), B = unit_VE.shape, query.shape[0]
    sought = min(V, k + (0 if exclude_BX is None else exclude_BX.shape[1]))
    least, most = BLOCK_ROWS
    R = min(V, max(sought, least, min(most, BLOCK_SCORES // B)))

    def of_block(i: jax.Array) -> tuple[jax.Array, jax.Array]:
        start = jnp.minimum(i * R, V - R)  # the last block overlaps the one before it
        score_BR = score(query, jax.lax.dynamic_slice(unit_VE, (start, 0), (R, E)))
        score_BR = jnp.where(start + jnp.arange(R)[None] >= i * R, score_BR, -jnp.inf)
        score_BK, place_BK = _top(score_BR, sought)
        return score_BK, start + place_BK

    score_IBK, row_IBK = jax.lax.map(of_block, jnp.arange(-(-V // R)))
    score_BS, row_BS = (jnp.moveaxis(x_IBK, 0, 1).reshape(B, -1) for x_IBK in (score_IBK, row_IBK))
    score_BS, place_BS = jax.lax.top_k(score_BS, sought)
    row_BS = jnp.take_along_axis(row_BS, place_BS, axis=1)
    if exclude_BX is not None:
        left_BS = (row_BS[:, :, None] != exclude_BX[:, None, :]).all(-1)
        score_BS, row_BS = jnp.where(left_BS, score_BS, -jnp.inf), jnp.where(left_BS, row_BS, -1)
    score_BK, place_BK = jax.lax.top_k(score_BS, min(k, sought))
    return BestRows(score_BK, jnp.take_along_axis(row_BS, place_BK, axis=1))


def _top(score_BR: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Compute lax.top_k faster for long rows: the best k lie in the k groups with the largest maxima."""
    B, R = score_BR.shape
    groups = -(-R // GROUP)
    if groups <= 2 * k:
        return jax.lax.top_k(score_BR, k)
    padded_BR = jnp.pad(score_BR, ((0, 0), (0, groups * GROUP - R)), constant_values=-jnp.inf)
    score_BSG = padded_BR.reshape(B, groups, GROUP)
    group_BK = jnp.sort(jax.lax.top_k(score_BSG.max(-1), k)[1], axis=-1)  # in order, so that ties go to the first
    few_BKG = jnp.take_along_axis(score_BSG, group_BK[:, :, None], axis=1)
    score_BK, place_BK = jax.lax.top_k(few_BKG.reshape(B, -1), k)
    chosen_BK = jnp.take_along_axis(group_BK, place_BK // GROUP, axis=1)
    return score_BK, chosen_BK * GROUP + place_BK % GROUP
