"""A mean over seeds, or a difference of two, and its confidence interval."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import scipy.stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """Mean over seeds, standard deviation (n - 1), and 95 % confidence interval of the mean by Student's t.

    All but the mean are NaN for a single value.
    """

    mean: float
    std: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether zero is in the interval, or the values are too few or too equal for an interval."""
        return not (self.std > 0 and (self.low > 0 or self.high < 0))


def estimate(values: Sequence[float]) -> Estimate:
    """Estimates a mean from the value of each seed.

    Example:
        >>> estimate([1.0, 2.0, 3.0]).mean
        2.0
    """
    mean, count = statistics.fmean(values), len(values)
    if count < 2:
        return Estimate(mean, math.nan, math.nan, math.nan)
    std = statistics.stdev(values)
    return _with_interval(mean, std, std**2 / count, count - 1)


def unpaired(base: Sequence[float], other: Sequence[float]) -> Estimate:
    """Estimates the difference of the means, other minus base, of runs that share no seeds; each has two or more.

    The standard deviation is that of the difference of two runs. The interval is Welch's, for unequal variances.

    Source: Welch, "The generalization of 'Student's' problem", Biometrika 34 (1947), with Satterthwaite's degrees of
    freedom.
    """
    mean = statistics.fmean(other) - statistics.fmean(base)
    if min(len(base), len(other)) < 2:
        return Estimate(mean, math.nan, math.nan, math.nan)
    parts = [(statistics.variance(values), len(values)) for values in (base, other)]
    variance = sum(part / count for part, count in parts)
    freedom = variance**2 / (sum((part / count) ** 2 / (count - 1) for part, count in parts) or math.nan)
    return _with_interval(mean, math.sqrt(sum(part for part, _ in parts)), variance, freedom)


def _with_interval(mean: float, std: float, variance: float, freedom: float) -> Estimate:
    """Adds Student's interval, where ``variance`` is that of the mean."""
    half = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(variance) if variance else 0.0
    return Estimate(mean, std, mean - half, mean + half)
