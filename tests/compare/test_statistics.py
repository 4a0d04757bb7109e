"""Intervals and p-values: values worked by hand or out of tables, and how often intervals hold the truth."""

import itertools
import math

import numpy as np
import pytest

from jaxlm.compare.statistics import paired_bootstrap, paired_t, student_p, student_quantile, welch_t


@pytest.mark.parametrize(
    ("p", "degrees", "quantile"),
    [(0.05, 1, 12.7062), (0.05, 7, 2.364624), (0.05, 10, 2.228139), (0.01, 30, 2.749996), (0.05, 1e6, 1.959966)],
)
def test_students_quantiles_are_those_of_the_tables(p, degrees, quantile):
    assert student_quantile(p, degrees) == pytest.approx(quantile, rel=1e-5)
    assert student_p(quantile, degrees) == pytest.approx(p, rel=1e-4)


@pytest.mark.parametrize("t", [0.0, 0.5, 1.0, -3.0, 40.0])
def test_students_p_with_one_and_two_degrees_has_a_closed_form(t):
    """Cauchy's distribution, and p = 1 - t / sqrt(2 + t^2)."""
    assert student_p(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(abs(t)), rel=1e-9)
    assert student_p(t, 2) == pytest.approx(1 - abs(t) / math.sqrt(2 + t * t), rel=1e-9)


def test_the_paired_t_is_that_of_the_differences():
    """Differences 1, 2, 3, 4: mean 2.5, s = 1.29099, error 0.645497, t = 3.872983 with 3 degrees."""
    test = paired_t(np.array([3.0, 5.0, 7.0, 9.0]), np.array([2.0, 3.0, 4.0, 5.0]))
    assert (test.difference.estimate, test.degrees) == (2.5, 3)
    assert test.standard_error == pytest.approx(0.6454972)
    assert test.difference.high - 2.5 == pytest.approx(3.182446 * 0.6454972, rel=1e-5)
    assert test.p == pytest.approx(0.030466, rel=1e-4)


def test_welchs_t_has_its_own_degrees_of_freedom():
    """Variances 1 and 4 of 3 and 5 values: v = 1/3 and 4/5, degrees (1.13333)^2 / (1/18 + 0.16) = 5.958763."""
    a, b = np.array([1.0, 2.0, 3.0]), 6 + np.array([-2.0, -2.0, 0.0, 2.0, 2.0])
    test = welch_t(a, b)
    assert test.difference.estimate == pytest.approx(-4.0)
    assert test.standard_error == pytest.approx(math.sqrt(1 / 3 + 0.8))
    assert test.degrees == pytest.approx(5.958763, rel=1e-6)
    assert test.difference.low < -4 < test.difference.high < 0


def test_equal_sides_have_no_difference():
    x = np.array([1.0, 2.0, 4.0])
    assert paired_t(x, x).difference == (0.0, 0.0, 0.0) and paired_t(x, x).p == 1.0
    assert paired_t(x + 1, x).p == 0.0
    zero = paired_bootstrap(np.zeros(50), np.ones(50), resamples=200, seed=0)
    assert zero.difference == (0.0, 0.0, 0.0) and zero.a_better == 0.5


def test_the_bootstrap_of_few_blocks_is_that_of_all_resamples():
    """Three blocks have 27 resamples, which can be listed."""
    sum_N, size_N = np.array([-3.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])
    all_R = [sum_N[list(drawn)].sum() / size_N[list(drawn)].sum() for drawn in itertools.product(range(3), repeat=3)]
    found = paired_bootstrap(sum_N, size_N, resamples=200_000, seed=1)
    better = np.mean(np.array(all_R) < 0) + np.mean(np.array(all_R) == 0) / 2
    assert found.a_better == pytest.approx(better, abs=0.005)
    assert found.difference.estimate == 0.0
    assert (found.difference.low, found.difference.high) == (min(all_R), max(all_R))  # each has 1 / 27 > 0.025


def test_the_seed_decides_the_resamples():
    blocks = np.random.default_rng(0).normal(size=(2, 100)) ** 2
    one, same, other = (paired_bootstrap(*blocks, resamples=500, seed=seed) for seed in (1, 1, 2))
    assert one == same != other


def test_intervals_hold_the_true_difference_as_often_as_they_say():
    """Lines of 2 to 12 tokens whose differences share a part of their line: of 250 texts, 95 % hold it, give or take
    three standard errors.
    """
    rng, truth, held = np.random.default_rng(3), 0.05, {"bootstrap": 0, "paired": 0, "welch": 0}
    for number in range(250):
        size_N = rng.integers(2, 13, 150).astype(float)
        mean_N = truth + rng.exponential(0.3, 150) - 0.3
        sum_N = mean_N * size_N + rng.normal(0, 0.5, 150) * np.sqrt(size_N)
        found = paired_bootstrap(sum_N, size_N, resamples=400, seed=number).difference
        held["bootstrap"] += found.low <= truth <= found.high
        common, a, b = rng.normal(size=(3, 8))
        paired = paired_t(common + 0.2 * a + truth, common + 0.2 * b).difference
        held["paired"] += paired.low <= truth <= paired.high
        welch = welch_t(rng.normal(truth, 1.0, 5), rng.normal(0.0, 0.2, 9)).difference
        held["welch"] += welch.low <= truth <= welch.high
    error = math.sqrt(0.95 * 0.05 / 250)
    for name, count in held.items():
        assert abs(count / 250 - 0.95) < 3 * error, (name, count)


@pytest.mark.parametrize("test", [paired_t, welch_t])
def test_one_value_has_no_interval(test):
    with pytest.raises(ValueError, match="wants at least two"):
        test(np.array([1.0]), np.array([2.0]))
    with pytest.raises(ValueError, match="wants at least two blocks"):
        paired_bootstrap(np.ones(1), np.ones(1), resamples=100, seed=0)
