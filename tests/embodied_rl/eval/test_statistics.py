import numpy as np
import pytest

from embodied_rl.eval.statistics import (
    Interval,
    across_seeds,
    bootstrap_mean,
    interquartile_mean,
    overlap,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.27753),  # the textbook values of the score interval
        (10, 10, 0.72247, 1.0),
        (5, 10, 0.23659, 0.76341),
        (95, 100, 0.88825, 0.97846),
    ],
)
def test_wilson_against_known_values(successes, trials, low, high):
    interval = wilson(successes, trials)
    assert interval.value == successes / trials
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-5)


def test_wilson_closed_form():
    n, k, z = 37, 9, 1.959963984540054
    p = k / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    interval = wilson(k, n)
    assert (interval.low, interval.high) == pytest.approx((centre - half, centre + half))


@pytest.mark.parametrize(("successes", "trials"), [(3, 2), (-1, 5), (0, 0)])
def test_wilson_rejects_impossible_counts(successes, trials):
    with pytest.raises(ValueError, match=f"successes={successes}"):
        wilson(successes, trials)


def test_bootstrap_is_repeatable_and_near_the_normal_interval():
    values = np.random.default_rng(0).normal(10.0, 2.0, 400)
    interval = bootstrap_mean(values)
    assert interval == bootstrap_mean(values)
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    assert (interval.low, interval.high) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=0.05
    )


def test_bootstrap_of_one_value_and_of_equal_values():
    assert bootstrap_mean([3.0]) == Interval(value=3.0, low=None, high=None)
    assert bootstrap_mean([2.0, 2.0, 2.0]) == Interval(value=2.0, low=2.0, high=2.0)


@pytest.mark.parametrize(
    ("values", "message"), [([], "non-empty"), ([1.0, np.nan], "entry 1 is not finite"), ([[1.0]], "shape")]
)
def test_values_are_checked(values, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_mean(values)


def test_interquartile_mean_ignores_the_outer_quarters():
    assert interquartile_mean([-1000.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1000.0]) == pytest.approx(3.5)


def test_across_seeds_by_hand():
    summary = across_seeds([1.0, 2.0, 3.0])
    assert summary.mean.value == 2.0
    assert summary.std == pytest.approx(1.0)
    assert summary.mean.high == pytest.approx(2.0 + 4.302653 / np.sqrt(3))  # t with two degrees of freedom
    assert summary.num_seeds == 3
    assert across_seeds([5.0]).std is None


def test_overlap():
    a = Interval(value=1.0, low=0.0, high=2.0)
    assert overlap(a, Interval(value=3.0, low=2.0, high=4.0))
    assert not overlap(a, Interval(value=3.0, low=2.5, high=4.0))
    assert overlap(a, Interval(value=1.5, low=None, high=None))
