"""A mean that does not depend on the order or the grouping of its values."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

UNITS = 2**24  # per 1.0: values are summed as integer multiples of 6e-8


class ExactMean(Metric):
    """Mean of all values over all processes, equal to the last bit for any number of processes.

    torchmetrics' ``MeanMetric`` adds floats, whose sum depends on the order; a sum of integers does not. Non-finite
    values are summed apart, so that they still show. Sums of up to 5e11 fit.
    """

    full_state_update = False
    units: Tensor
    count: Tensor
    not_finite: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("units", torch.tensor(0, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("not_finite", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, value: Tensor) -> None:
        """Adds float values of any shape."""
        finite = value.isfinite()
        self.units += (value.where(finite, 0) * UNITS).round().long().sum()
        self.not_finite += value.where(~finite, 0).sum()
        self.count += value.numel()

    def compute(self) -> Tensor:
        """Returns the mean as a float32 scalar; NaN without values."""
        mean = self.units.cpu().double() / UNITS / self.count.cpu()  # on the CPU: not every GPU has float64
        return mean.float().to(self.units.device) + self.not_finite
