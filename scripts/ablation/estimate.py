"""A mean over seeds and its confidence interval."""

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
    half = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * std / math.sqrt(count)
    return Estimate(mean, std, mean - half, mean + half)
