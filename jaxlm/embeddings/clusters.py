"""Spherical k-means: words in groups of like direction."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlm.embeddings.search import unit

BLOCK_ROWS = 8192
"""Rows of the table compared with all centres at a time."""


class Clusters(NamedTuple):
    """K groups of a table's rows."""

    center_KE: jax.Array
    """Of length 1."""
    cluster_V: jax.Array
    """The centre with the largest cosine to each row."""
    cosine_V: jax.Array
    """That cosine; k-means climbs to a local maximum of its sum."""


@partial(jax.jit, static_argnames=("clusters", "steps"))
def kmeans(unit_VE: jax.Array, clusters: int, key: jax.Array, steps: int = 100) -> Clusters:
    """Group rows of length 1 by direction: in turn each row takes the nearest centre, and each centre the direction of
    its rows' sum, until no row moves or `steps` are done. A centre without rows goes to the row served worst.

    Centres begin as rows drawn one after another with probability proportional to 1 - cos to the nearest so far, half
    the squared distance (k-means++: Arthur and Vassilvitskii, 2007). The same key gives the same clusters.
    Dhillon and Modha, Concept Decompositions for Large Sparse Text Data Using Clustering (2001).
    Raises ValueError unless 1 <= clusters <= V.
    """
    V, K = unit_VE.shape[0], clusters
    if not 1 <= K <= V:
        raise ValueError(f"kmeans wants clusters from 1 to {V} (the rows), got {K}")

    def again(carry: tuple[jax.Array, Clusters, jax.Array]) -> jax.Array:
        step, _, moved = carry
        return (step < steps) & moved

    def improve(carry: tuple[jax.Array, Clusters, jax.Array]) -> tuple[jax.Array, Clusters, jax.Array]:
        step, was, _ = carry
        sum_KE, count_K = _sums(unit_VE, was.cluster_V, K)
        worst_K = jax.lax.top_k(-was.cosine_V, K)[1]
        empty_K = count_K == 0
        row_K = worst_K[jnp.cumsum(empty_K) - 1]  # the first empty cluster takes the worst row, and so on
        now = _assign(unit_VE, jnp.where(empty_K[:, None], unit_VE[row_K], unit(sum_KE)))
        return step + 1, now, (now.cluster_V != was.cluster_V).any()

    start = _assign(unit_VE, _seeds(unit_VE, K, key))
    return jax.lax.while_loop(again, improve, (jnp.zeros((), jnp.int32), start, jnp.array(True)))[1]


def _seeds(unit_VE: jax.Array, K: int, key: jax.Array) -> jax.Array:
    """K rows by k-means++; rows of zeros are not drawn."""
    possible_V = jnp.where((unit_VE != 0).any(-1), 0.0, -jnp.inf)

    def draw(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        center_KE, cosine_V = carry
        log_weight_V = jnp.where(i == 0, 0.0, jnp.log(jnp.maximum(1 - cosine_V, 0)))
        row = jax.random.categorical(jax.random.fold_in(key, i), log_weight_V + possible_V)
        cosine_V = jnp.maximum(cosine_V, _cosines(unit_VE, unit_VE[row][None])[:, 0])
        return center_KE.at[i].set(unit_VE[row]), cosine_V

    V, E = unit_VE.shape
    return jax.lax.fori_loop(0, K, draw, (jnp.zeros((K, E), unit_VE.dtype), jnp.full(V, -1.0, unit_VE.dtype)))[0]


def _cosines(unit_RE: jax.Array, center_KE: jax.Array) -> jax.Array:
    return jnp.matmul(unit_RE, center_KE.T, precision=jax.lax.Precision.HIGHEST)


def _blocks(V: int) -> tuple[int, jax.Array]:
    """Rows of a block, and where each begins; the last one begins early, so that it ends with the table."""
    R = min(V, BLOCK_ROWS)
    return R, jnp.minimum(jnp.arange(-(-V // R)) * R, V - R)


def _assign(unit_VE: jax.Array, center_KE: jax.Array) -> Clusters:
    V, E = unit_VE.shape
    R, start_I = _blocks(V)

    def of_block(carry: tuple[jax.Array, jax.Array], start: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        cosine_RK = _cosines(jax.lax.dynamic_slice(unit_VE, (start, 0), (R, E)), center_KE)
        found = jnp.argmax(cosine_RK, axis=1).astype(jnp.int32), jnp.max(cosine_RK, axis=1)
        cluster_V, cosine_V = (
            jax.lax.dynamic_update_slice(x_V, x_R, (start,)) for x_V, x_R in zip(carry, found, strict=True)
        )
        return (cluster_V, cosine_V), None

    empty = jnp.zeros(V, jnp.int32), jnp.zeros(V, unit_VE.dtype)
    cluster_V, cosine_V = jax.lax.scan(of_block, empty, start_I)[0]
    return Clusters(center_KE, cluster_V, cosine_V)


def _sums(unit_VE: jax.Array, cluster_V: jax.Array, K: int) -> tuple[jax.Array, jax.Array]:
    """Sum and number of each cluster's rows, as products: scattered sums would depend on a GPU's mood."""
    V, E = unit_VE.shape
    R, start_I = _blocks(V)

    def of_block(
        carry: tuple[jax.Array, jax.Array], block: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        i, start = block
        cluster_R = jax.lax.dynamic_slice(cluster_V, (start,), (R,))
        fresh_R = start + jnp.arange(R) >= i * R
        member_KR = ((cluster_R == jnp.arange(K)[:, None]) & fresh_R).astype(unit_VE.dtype)
        rows_RE = jax.lax.dynamic_slice(unit_VE, (start, 0), (R, E))
        sum_KE = jnp.matmul(member_KR, rows_RE, precision=jax.lax.Precision.HIGHEST)
        return (carry[0] + sum_KE, carry[1] + member_KR.sum(-1)), None

    zero = jnp.zeros((K, E), unit_VE.dtype), jnp.zeros(K, unit_VE.dtype)
    return jax.lax.scan(of_block, zero, (jnp.arange(len(start_I)), start_I))[0]
