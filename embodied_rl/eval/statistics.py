"""Intervals for success rates and returns, and summaries over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """An estimate with its confidence interval; the bounds are None where one value shows no spread."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedSummary:
    """One number per training seed, summed up."""

    mean: Interval
    std: float | None  # sample standard deviation, None with one seed
    iqm: float
    num_seeds: int


def wilson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a success rate: 0 of n gives a lower bound of 0, n of n an upper one of 1."""
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(
            f"successes={successes}: must be between 0 and trials={trials}, and trials at least 1"
        )
    bounds = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return Interval(value=successes / trials, low=float(bounds.low), high=float(bounds.high))


def bootstrap_mean(
    values: Sequence[float] | np.ndarray, confidence: float = 0.95, *, resamples: int = 5_000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of the mean of `values [n]`; `seed` makes the resampling repeatable."""
    array = _finite(values)
    mean = float(array.mean())
    if len(array) == 1:
        return Interval(value=mean, low=None, high=None)
    result = stats.bootstrap(
        (array,),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        batch=max(1, 1_000_000 // len(array)),  # at most 8 MB of resampled values at a time
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Interval(
        value=mean, low=float(result.confidence_interval.low), high=float(result.confidence_interval.high)
    )


def interquartile_mean(values: Sequence[float] | np.ndarray) -> float:
    """Mean of the middle half of `values [n]` (Agarwal et al. 2021, arXiv:2108.13264)."""
    return float(stats.trim_mean(_finite(values), 0.25))


def across_seeds(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> SeedSummary:
    """Sum up one value per training seed, `values [n]`; the interval of the mean is Student's t."""
    array = _finite(values)
    mean = float(array.mean())
    if len(array) == 1:
        return SeedSummary(mean=Interval(value=mean, low=None, high=None), std=None, iqm=mean, num_seeds=1)
    std = float(array.std(ddof=1))
    half = float(stats.t.ppf(0.5 + confidence / 2, len(array) - 1)) * std / len(array) ** 0.5
    return SeedSummary(
        mean=Interval(value=mean, low=mean - half, high=mean + half),
        std=std,
        iqm=interquartile_mean(array),
        num_seeds=len(array),
    )


def overlap(a: Interval, b: Interval) -> bool:
    """Whether two intervals share a point; an interval without bounds is its value."""
    low_a, high_a = _bounds(a)
    low_b, high_b = _bounds(b)
    return low_a <= high_b and low_b <= high_a


def _bounds(interval: Interval) -> tuple[float, float]:
    if interval.low is None or interval.high is None:
        return interval.value, interval.value
    return interval.low, interval.high


def _finite(values: Sequence[float] | np.ndarray) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"values: expected a non-empty list of numbers, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"values: entry {int(np.argmin(np.isfinite(array)))} is not finite")
    return array
