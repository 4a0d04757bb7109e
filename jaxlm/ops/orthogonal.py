"""The orthogonal matrix next to a matrix, by Newton and Schulz's iterations."""

import jax
import jax.numpy as jnp

QUINTIC = 3.4445, -4.7750, 2.0315
"""Coefficients a, b and c whose slope at 0 is steep (Jordan et al. 2024, "Muon")."""
ITERATIONS = 5
EPS = 1e-8


def newton_schulz(m_LIO: jax.Array, coefficients: jax.Array, iterations: int = ITERATIONS) -> jax.Array:
    """Each matrix of a stack with its singular values brought to about 1, between 0.7 and 1.2.

    X <- a X + b (X X') X + c (X X')^2 X from X = M / (|M| + EPS), X' being the transpose, in M's dtype (Jordan et al.
    2024). `coefficients` are a, b and c. A matrix of zeros stays one.
    """
    a, b, c = coefficients.astype(m_LIO.dtype)

    def one(m_IO: jax.Array) -> jax.Array:
        tall = m_IO.shape[0] > m_IO.shape[1]
        x = m_IO.T if tall else m_IO  # the smaller of both products X X' and X' X
        x = x / (jnp.linalg.norm(x, ord="fro") + EPS)
        for _ in range(iterations):
            square = x @ x.T
            x = a * x + (b * square + c * square @ square) @ x
        return x.T if tall else x

    return jax.vmap(one)(m_LIO)
