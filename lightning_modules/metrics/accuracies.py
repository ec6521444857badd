"""What torchmetrics counts otherwise: classes that are equally probable, and classes that have no image."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_modules.metrics.exact_mean import ExactMean


def ranked(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Scores ``(images, classes)`` in falling order, and whose they are; of equal ones the lower index comes first.

    So does ``argmax``. ``topk`` promises nothing: of twelve equal scores it takes none of the first five.
    """
    return scores.sort(dim=1, descending=True, stable=True)


class TopKAccuracy(ExactMean):
    """Share of the images whose class is among the k most probable, in the order of ``ranked``.

    Args:
        k: At most the number of classes.
    """

    def __init__(self, k: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = k

    def update(self, preds: Tensor, target: Tensor) -> None:  # type: ignore[override]
        """Adds logits ``(batch, classes)`` with their targets ``(batch,)``."""
        _, labels = ranked(preds)
        super().update((labels[:, : self.k] == target[:, None]).any(1).float())


class BalancedAccuracy(Metric):
    """Mean over the classes that have images of the share of their images that are classified right.

    torchmetrics' macro average counts a class without an image as 0 as soon as another's is taken for it. Whole numbers
    are summed, so that any number of processes comes to the same digits.

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
        """Returns the mean, a float32 scalar; NaN where there was no image."""
        images, correct = self.images.cpu(), self.correct.cpu().double()  # on the CPU: not every GPU has float64
        return (correct / images)[images > 0].mean().float().to(self.images.device)
