"""Uncertainty of fits: against refits by hand, and on data whose errors are not independent."""

import numpy as np
import pytest
from scipy import stats

from embodied_rl.sim2real.uncertainty import covariance, half_width, pooled, share_left, stretches


def test_share_of_uncertainty_left_by_hand():
    jacobian = np.array([[100.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    left = share_left(jacobian)
    assert left[0] == pytest.approx((1e4 + 12) ** -0.5 * 12**0.5)
    assert left[1] == pytest.approx(1.0)
    assert left[2] == pytest.approx((12 / 14) ** 0.5)
    twins = share_left(np.array([[100.0, 100.0]]))  # only the sum is known
    assert twins == pytest.approx([0.5**0.5] * 2, rel=1e-3)


def test_stretches_stay_within_episodes():
    running = np.arange(12) < np.array([[12], [3]])
    assert stretches(running).tolist() == [0] * 10 + [1] * 2 + [2] * 3
    minute = stretches(np.ones((10, 60), bool))
    assert np.bincount(minute).tolist() == [30] * 20


def test_covariance_is_the_jackknife_over_clusters():
    rng = np.random.default_rng(0)
    jacobian, target = rng.normal(size=(24, 2)), rng.normal(size=24)
    cluster = np.repeat(np.arange(6), [2, 3, 4, 5, 4, 6])
    best = np.linalg.lstsq(jacobian, target)[0]
    without = np.array([
        np.linalg.lstsq(jacobian[cluster != g], target[cluster != g])[0] - best for g in range(6)
    ])  # fmt: skip
    found = covariance(jacobian, jacobian @ best - target, cluster)
    np.testing.assert_allclose(found, 5 / 6 * without.T @ without, rtol=1e-10)


def test_fits_are_pooled_by_their_lengths():
    values = np.array([[1.0, 2.0], [3.0, 2.0], [5.0, 8.0]])
    mean, spread = pooled(values, np.array([60, 60, 60]))
    np.testing.assert_allclose(mean, values.mean(axis=0))
    np.testing.assert_allclose(spread, np.cov(values.T) / 3)
    assert pooled(values, np.array([1, 1, 2]))[0] == pytest.approx([3.5, 5.0])


def test_intervals_hold_the_truth_where_errors_depend_on_each_other():
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(20), 30)
    covered = textbook = 0
    for _ in range(300):
        jacobian = np.repeat(rng.normal(size=20), 30)[:, None] + 0.3 * rng.normal(size=(600, 1))
        # One error per stretch, in some far larger than in others, and a little of its own in every row.
        error = np.repeat(rng.normal(size=20) * rng.exponential(size=20), 30) + 0.1 * rng.normal(size=600)
        off = np.linalg.lstsq(jacobian, error)[0]
        residual = error - jacobian @ off
        covered += abs(off[0]) < half_width(covariance(jacobian, residual, cluster), 20)[0]
        textbook += abs(off[0]) < 1.96 * residual.std() / np.sqrt((jacobian**2).sum())
    low, high = stats.binom.interval(0.999, 300, 0.95)
    assert low <= covered <= high
    assert textbook < 0.5 * 300  # what it is for
    assert half_width(np.diag([4.0, 1.0]), 10) == pytest.approx([2 * 2.262, 2.262], rel=1e-3)
