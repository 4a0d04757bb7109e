"""Differences of means with their uncertainty: the paired bootstrap, the paired t-test and Welch's. NumPy alone."""

import functools
import math
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
"""The share of intervals that hold the true difference."""
DRAWN_AT_ONCE = 2**22
"""Indices that the bootstrap draws at once, which bounds its memory."""
NODES = 256
"""Nodes of the quadrature of Student's distribution."""


class Difference(NamedTuple):
    """An estimate of the mean loss of A minus that of B."""

    estimate: float
    low: float
    """The lower end of the interval of LEVEL."""
    high: float
    """Its upper end."""


class Bootstrap(NamedTuple):
    """A difference by resampling, and the share of resamples in which A is better (ties count half)."""

    difference: Difference
    a_better: float


class TTest(NamedTuple):
    """A difference by Student's distribution."""

    difference: Difference
    standard_error: float
    degrees: float
    """Degrees of freedom."""
    p: float
    """The two-sided p-value of no difference."""


def paired_bootstrap(sum_N: np.ndarray, size_N: np.ndarray, *, resamples: int, seed: int) -> Bootstrap:
    """The mean difference sum(sum) / sum(size) of N independent blocks, with the percentile interval of resamples.

    sum_N is the loss of A minus that of B in each block, size_N its tokens or bytes (Efron and Tibshirani 1993,
    chapter 13; for language models: Koehn 2004). Raises ValueError for fewer than two blocks.
    """
    N = len(sum_N)
    if N < 2:
        raise ValueError(f"paired_bootstrap wants at least two blocks, got {N}")
    rng, many, means = np.random.default_rng(seed), max(1, DRAWN_AT_ONCE // N), []
    for first in range(0, resamples, many):
        drawn_RN = rng.integers(0, N, (min(many, resamples - first), N))
        means.append(sum_N[drawn_RN].sum(axis=1) / size_N[drawn_RN].sum(axis=1))
    mean_R = np.concatenate(means)
    low, high = np.quantile(mean_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    better = float((mean_R < 0).mean() + (mean_R == 0).mean() / 2)
    return Bootstrap(Difference(float(sum_N.sum() / size_N.sum()), float(low), float(high)), better)


def paired_t(a_N: np.ndarray, b_N: np.ndarray) -> TTest:
    """The mean of a - b over N pairs: standard error s / sqrt(N), N - 1 degrees of freedom.

    Raises ValueError for N < 2.
    """
    d_N = np.asarray(a_N, np.float64) - np.asarray(b_N, np.float64)
    if len(d_N) < 2:
        raise ValueError(f"paired_t wants at least two pairs, got {len(d_N)}")
    return _t_test(float(d_N.mean()), float(d_N.std(ddof=1)) / math.sqrt(len(d_N)), len(d_N) - 1)


def welch_t(a_N: np.ndarray, b_M: np.ndarray) -> TTest:
    """mean(a) - mean(b) of two samples of unequal variance, with v = s^2 / n of each.

    Standard error sqrt(v_a + v_b), degrees (v_a + v_b)^2 / (v_a^2 / (N - 1) + v_b^2 / (M - 1)) (Welch 1947). Raises
    ValueError for a sample of fewer than two.
    """
    sizes = len(a_N), len(b_M)
    if min(sizes) < 2:
        raise ValueError(f"welch_t wants at least two values of each, got {sizes[0]} and {sizes[1]}")
    a, b = (float(np.var(x, ddof=1)) / len(x) for x in (a_N, b_M))
    among = a**2 / (sizes[0] - 1) + b**2 / (sizes[1] - 1)
    degrees = (a + b) ** 2 / among if among else float(sum(sizes) - 2)
    return _t_test(float(np.mean(a_N) - np.mean(b_M)), math.sqrt(a + b), degrees)


def student_p(t: float, degrees: float) -> float:
    """P(|T| >= |t|) of Student's distribution.

    With t = sqrt(degrees) tan(x) its density is proportional to cos(x)^(degrees - 1), integrated by Gauss and Legendre.
    """
    start = math.atan(abs(t) / math.sqrt(degrees))
    return _tail(start, degrees) / _tail(0.0, degrees)


def student_quantile(p: float, degrees: float) -> float:
    """The t for which P(|T| >= t) = p, by bisection."""
    low, high = 0.0, 1.0
    while student_p(high, degrees) > p:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_p(middle, degrees) > p else (low, middle)
    return (low + high) / 2


def _t_test(estimate: float, error: float, degrees: float) -> TTest:
    if error == 0:
        return TTest(Difference(estimate, estimate, estimate), 0.0, degrees, 1.0 if estimate == 0 else 0.0)
    half = student_quantile(1 - LEVEL, degrees) * error
    p = student_p(estimate / error, degrees)
    return TTest(Difference(estimate, estimate - half, estimate + half), error, degrees, p)


def _tail(start: float, degrees: float) -> float:
    """The integral of cos(x)^(degrees - 1) from `start` to pi / 2, in units of its value at `start` = 0."""
    end = min(math.pi / 2, start + 40 / math.sqrt(degrees))  # beyond, the integrand is below exp(-800)
    node_N, weight_N = _nodes()
    x_N = start + (end - start) * (node_N + 1) / 2
    return float((weight_N * np.cos(x_N) ** (degrees - 1)).sum() * (end - start) / 2)


@functools.cache
def _nodes() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(NODES)
