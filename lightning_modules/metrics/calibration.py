"""Metrics of predicted probabilities: negative log-likelihood and expected calibration error."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from lightning_modules.metrics.exact_mean import UNITS, ExactMean


class NegativeLogLikelihood(ExactMean):
    """Mean of -log p(target): the cross-entropy, whichever loss is used for training."""

    def update(self, preds: Tensor, target: Tensor) -> None:  # type: ignore[override]
        """Adds logits ``(batch, classes)`` with their targets ``(batch,)``."""
        super().update(F.cross_entropy(preds.float(), target, reduction="none"))


class CalibrationError(Metric):
    """Expected calibration error: the mean distance between confidence and accuracy over bins of equal width.

    The confidence is the probability of the predicted class. torchmetrics' ``MulticlassCalibrationError`` stores every
    confidence and adds floats in the order of processes; this metric stores three integers per bin, so that the result
    does not depend on the number of processes, and the bins can be drawn.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv 1706.04599, equation 3.

    Args:
        bins: Number of bins between 0 and 1.
    """

    full_state_update = False
    images: Tensor
    correct: Tensor
    confidence_units: Tensor

    def __init__(self, bins: int = 15, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("images", "correct", "confidence_units"):
            self.add_state(name, torch.zeros(bins, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Adds logits ``(batch, classes)`` with their targets ``(batch,)``."""
        confidence, predicted = preds.float().softmax(1).amax(1), preds.argmax(1)  # logits have fewer ties
        confidence, bins = confidence.nan_to_num(0.0), len(self.images)  # the likelihood shows non-finite values
        bin_of = (confidence * bins).long().clamp(max=bins - 1)
        ones = torch.ones_like(bin_of)
        self.images.scatter_add_(0, bin_of, ones)
        self.correct.scatter_add_(0, bin_of, ones * (predicted == target))
        self.confidence_units.scatter_add_(0, bin_of, (confidence * UNITS).round().long())

    def reliability(self) -> tuple[Tensor, Tensor, Tensor]:
        """Returns images, mean confidence and accuracy of each bin, ``(bins,)``; both are NaN for empty bins."""
        images = self.images.cpu()
        return images, self.confidence_units.cpu().double() / UNITS / images, self.correct.cpu() / images.double()

    def compute(self) -> Tensor:
        """Returns the error as a float32 scalar; NaN without images."""
        images, confidence, accuracy = self.reliability()
        error = ((confidence - accuracy).abs().nan_to_num() * images).sum() / images.sum()
        return error.float().to(self.images.device)
