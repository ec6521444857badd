"""A mean over seeds and how far to trust it."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import scipy.stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: Of the values.
        std: Their standard deviation (n - 1); NaN for one value.
        low: Lower end of the 95 % interval of the mean by Student's t; NaN for one value.
        high: Its upper end.
    """

    mean: float
    std: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether zero is in the interval, or there is none to speak of: equal values do not show how they vary."""
        return not (self.std > 0 and (self.low > 0 or self.high < 0))


def estimate(values: Sequence[float]) -> Estimate:
    """Mean, standard deviation and interval of ``values``."""
    mean, count = statistics.fmean(values), len(values)
    if count < 2:
        return Estimate(mean, math.nan, math.nan, math.nan)
    std = statistics.stdev(values)
    half = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * std / math.sqrt(count)
    return Estimate(mean, std, mean - half, mean + half)
