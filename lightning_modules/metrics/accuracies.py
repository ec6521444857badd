"""Accuracies that, unlike torchmetrics', break ties by class index and leave out classes without images."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_modules.metrics.exact_mean import ExactMean


def ranked(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Returns scores ``(images, classes)`` in descending order, and their class indices.

    Of equal scores the lower index comes first, as for ``argmax``. ``topk`` promises no order: of twelve equal scores
    it takes none of the first five.

    >>> ranked(torch.tensor([[0.25, 0.5, 0.25]]))[1]
    tensor([[1, 0, 2]])
    """
    return scores.sort(dim=1, descending=True, stable=True)


class TopKAccuracy(ExactMean):
    """Share of images whose class is among the k most probable, in the order of ``ranked``.

    Args:
        k: Number of classes to consider, at most all of them.
    """

    def __init__(self, k: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = k

    def update(self, preds: Tensor, target: Tensor) -> None:  # type: ignore[override]
        """Adds logits ``(batch, classes)`` with their targets ``(batch,)``."""
        _, labels = ranked(preds)
        super().update((labels[:, : self.k] == target[:, None]).any(1).float())


class BalancedAccuracy(Metric):
    """Mean accuracy over the classes that have images.

    torchmetrics' macro average counts a class without images as 0 once another class is mistaken for it. Integers are
    summed, so that the result does not depend on the number of processes.

    Args:
        num_classes: Number of the network's outputs.
    """

    full_state_update = False
    images: Tensor
    correct: Tensor

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("images", "correct"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Adds logits ``(batch, classes)`` with their targets ``(batch,)``."""
        self.images.scatter_add_(0, target, torch.ones_like(target))
        self.correct.scatter_add_(0, target, (preds.argmax(1) == target).long())

    def compute(self) -> Tensor:
        """Returns the mean as a float32 scalar; NaN without images."""
        images, correct = self.images.cpu(), self.correct.cpu().double()  # on the CPU: not every GPU has float64
        return (correct / images)[images > 0].mean().float().to(self.images.device)
