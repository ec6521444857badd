"""What a classifier said of each image of a split, gathered while it is evaluated."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pytorch_lightning import Trainer
from torch import Tensor

from callbacks.figures.draw import short
from callbacks.processes import gather
from datamodules.image_dataset import Batch, ImageDataset
from datamodules.sampler import BLANK


@dataclass(frozen=True)
class Answers:
    """A row for each image that was evaluated, in the order of the data set.

    Attributes:
        samples: Positions in the data set ``(images,)``.
        targets: Class indices.
        predicted: Indices of the most probable classes.
        confidence: Their probabilities.
        probability: Those of the targets.
    """

    samples: np.ndarray
    targets: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    probability: np.ndarray

    def confusion(self, classes: int) -> np.ndarray:
        """Images by class and prediction, ``(classes, classes)``."""
        return np.bincount(self.targets * classes + self.predicted, minlength=classes**2).reshape(classes, classes)

    def worst(self, count: int) -> np.ndarray:
        """Rows of the images whose class was found least probable, worst first."""
        return np.argsort(self.probability, kind="stable")[:count]


def worst_images(
    dataset: ImageDataset, answers: Answers, names: Sequence[str], count: int = 16
) -> tuple[list[np.ndarray], list[str]]:
    """The images whose class was found least probable, as the network saw them, and what it took them for."""
    images, titles = [], []
    for row in answers.worst(count):
        images.append(dataset[int(answers.samples[row])].images.numpy())
        true, predicted = (short(names[int(x[row])]) for x in (answers.targets, answers.predicted))
        titles.append(
            f"{true}: p = {answers.probability[row]:.2g}\ntaken for {predicted}: {answers.confidence[row]:.2f}"
        )
    return images, titles


def most_confused(confusion: np.ndarray, count: int = 20) -> list[tuple[int, int, int]]:
    """The pairs (class, prediction, images) of most mistakes, most first."""
    mistakes = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:count]
    pairs = zip(*np.unravel_index(order, mistakes.shape), strict=True)
    return [(int(i), int(j), int(mistakes[i, j])) for i, j in pairs if mistakes[i, j]]


class AnswerCollector:
    """Keeps 32 bytes an image, on the device until the end, so that no batch waits."""

    def __init__(self) -> None:
        self._batches: list[tuple[Tensor, ...]] = []

    def add(self, batch: Batch, logits: Tensor) -> None:
        """Takes a batch with its logits ``(batch, classes)``."""
        probabilities = logits.float().softmax(1)
        confidence, predicted = probabilities.amax(1), logits.argmax(1)  # as the accuracy counts it, equal ones too
        probability = probabilities.gather(1, batch.targets.clamp(min=0)[:, None])[:, 0]
        self._batches.append((batch.samples, batch.targets, predicted, confidence, probability))

    def finish(self, trainer: Trainer) -> Answers:
        """The rows of all processes; a collective operation. Starts anew."""
        columns = [torch.cat(column).cpu().numpy() for column in zip(*self._batches, strict=True)]
        self._batches = []
        parts = [part for part in gather(trainer, columns) if part]
        samples, *others = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(samples, kind="stable")
        order = order[samples[order] != BLANK]
        return Answers(samples[order], *(column[order] for column in others))
