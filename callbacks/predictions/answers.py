"""Predictions for the images of a split, gathered while it is evaluated."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from callbacks.predictions.image_table import Table
from datamodules.image_dataset import Batch


@dataclass(frozen=True)
class Answers:
    """Columns ``(images,)`` about each evaluated image, in the order of the data set.

    Attributes:
        samples: Positions in the data set.
        targets: Class indices.
        predicted: Indices of the most probable classes.
        confidence: Probabilities of the predicted classes.
        probability: Probabilities of the targets.
        logits: Outputs of the network, float32 ``(images, classes)``, if they were kept.
    """

    samples: np.ndarray
    targets: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    probability: np.ndarray
    logits: np.ndarray | None = None

    def confusion(self, classes: int) -> np.ndarray:
        """Counts images by class (rows) and prediction (columns), ``(classes, classes)``."""
        return np.bincount(self.targets * classes + self.predicted, minlength=classes**2).reshape(classes, classes)

    def worst(self, count: int) -> np.ndarray:
        """Returns the rows of the images whose class got the lowest probability, worst first."""
        return np.argsort(self.probability, kind="stable")[:count]


def most_confused(confusion: np.ndarray, count: int = 20) -> list[tuple[int, int, int]]:
    """Returns the pairs with the most mistakes as (class, prediction, images), most first.

    >>> most_confused(np.array([[5, 2], [1, 7]]))
    [(0, 1, 2), (1, 0, 1)]
    """
    mistakes = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:count]
    pairs = zip(*np.unravel_index(order, mistakes.shape), strict=True)
    return [(int(i), int(j), int(mistakes[i, j])) for i, j in pairs if mistakes[i, j]]


class AnswerCollector:
    """Gathers ``Answers`` while a split is evaluated, in 32 bytes per image, and 4 for each logit.

    Args:
        images: Number of images in the split.
        temperature: What logits are divided by for probabilities.
        keep_logits: Whether the answers hold all logits.
    """

    def __init__(self, images: int, temperature: float = 1.0, keep_logits: bool = False) -> None:
        self._table = Table(images)
        self._temperature = temperature
        self._keep_logits = keep_logits

    def add(self, batch: Batch, logits: Tensor) -> None:
        """Adds a batch with its logits ``(batch, classes)``."""
        logits = logits.float()
        probabilities = (logits / self._temperature).softmax(1)
        self._table.add(
            batch.samples,
            targets=batch.targets,
            predicted=logits.argmax(1),  # breaks ties as the accuracy does
            confidence=probabilities.amax(1),
            probability=probabilities.gather(1, batch.targets.clamp(min=0)[:, None])[:, 0],
            **({"logits": logits} if self._keep_logits else {}),
        )

    def finish(self, trainer: Trainer) -> Answers:
        """Returns the rows of all processes; a collective operation."""
        columns = self._table.collect(trainer)
        counts = columns.pop("count")
        samples = np.flatnonzero(counts)
        # With --trainer.overfit_batches every process sees all images: equal values were summed.
        seen = counts[samples]
        means = {
            name: (x[samples] / seen.reshape(-1, *[1] * (x.ndim - 1))).astype(x.dtype) for name, x in columns.items()
        }
        return Answers(samples, **means)


class ValidationAnswers(Callback):
    """Base of callbacks that look at the answers of a validation; they begin to gather when they set ``_answers``."""

    _answers: AnswerCollector | None = None  # of the current or latest validation

    @override
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._answers:
            self._answers.add(batch, outputs)
