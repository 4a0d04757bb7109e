"""Projections of vectors to the plane, for plots: principal components and t-SNE."""

from typing import Literal

import numpy as np

from jaxlm.embeddings.embeddings import Embeddings
from jaxlm.errors import UserError

PERPLEXITY = 30.0
"""t-SNE's perplexity, roughly the neighbours it keeps near; at most a third of the points."""
FEWEST = 4
"""Least number of words in a plot."""

Projection = Literal["pca", "tsne"]
"""Principal components or t-SNE."""


def project_words(
    embeddings: Embeddings, words: list[str] | None, n: int, method: Projection = "pca", seed: int = 0
) -> tuple[list[str], np.ndarray]:
    """Project the given words, or the table's first n (the most frequent), to the plane; returns the words and xy_N2.

    Vectors are scaled to length 1 first, since similarity depends on direction only. Raises UserError for an unknown
    word, for fewer than FEWEST words, and for t-SNE without scikit-learn.
    """
    chosen = list(dict.fromkeys(words)) if words is not None else list(embeddings.words[:n])
    if len(chosen) < FEWEST:
        raise UserError(f"a picture of words wants at least {FEWEST} different ones, got {len(chosen)}")
    unit_NE = np.asarray(embeddings.unit_VE[embeddings.rows(chosen)])
    return chosen, pca(unit_NE) if method == "pca" else tsne(unit_NE, seed)


def pca(x_NE: np.ndarray) -> np.ndarray:
    """Project rows to their first two principal components: xy = U S of the centred rows' SVD, in float64.

    Signs are chosen so that the coordinate farthest from 0 along each component is positive. Returns xy_N2.
    """
    centered_NE = x_NE.astype(np.float64) - x_NE.mean(axis=0, dtype=np.float64)
    left_NK, size_K, _ = np.linalg.svd(centered_NE, full_matrices=False)
    xy_N2 = np.zeros((len(x_NE), 2))
    xy_N2[:, : len(size_K[:2])] = left_NK[:, :2] * size_K[:2]
    far_2 = xy_N2[np.abs(xy_N2).argmax(axis=0), np.arange(2)]
    return xy_N2 * np.where(far_2 < 0, -1, 1)


def tsne(x_NE: np.ndarray, seed: int = 0) -> np.ndarray:
    """Project rows by scikit-learn's t-SNE, initialised with principal components; deterministic for a seed.

    Van der Maaten and Hinton, Visualizing Data using t-SNE (2008). Returns xy_N2. Raises UserError without
    scikit-learn.
    """
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise UserError('t-SNE wants scikit-learn: pip install "jaxlm[tsne]", or take the pca picture') from None
    perplexity = min(PERPLEXITY, (len(x_NE) - 1) / 3)
    with threadpool_limits(1, user_api="openmp"):  # on a busy machine two threads that wait for each other are slower
        xy_N2 = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(x_NE)
    return np.asarray(xy_N2, np.float64)
