"""What the runs of all folds answer for the images that they did not train on: every image once."""

import functools
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from callbacks.predictions.prediction_csv import write_csv
from datamodules import ImageFolderDataModule
from datamodules.class_index import natural_key
from datamodules.files.atomic_file import atomic_file
from datamodules.files.csv_cells import to_cell
from datamodules.files.errors import UserError, listed
from lightning_modules.metrics.proportions import wilson_interval
from scripts.ablation.runs import Cell
from scripts.evaluation import evaluate_run

OUT_OF_FOLD_TABLE = "out_of_fold.csv"


@dataclass(frozen=True)
class OutOfFold:
    """Rows ``(images,)`` in the order of classes and then of names.

    Attributes:
        names: Names of the images, ``<class>/<name>``.
        classes: Class names, in the order of the network's outputs.
        label: Class indices.
        fold: The fold that each image is in, whose run did not train on it.
        probability: What that run's best weights answer, float32 ``(images, classes)``; NaN if it cannot be read.
    """

    names: list[str]
    classes: Sequence[str]
    label: np.ndarray
    fold: np.ndarray
    probability: np.ndarray

    @functools.cached_property
    def right(self) -> np.ndarray:
        """Whether each readable image's most probable class is its label, as 0 or 1; NaN for the others."""
        readable = ~np.isnan(self.probability[:, 0])
        return np.where(readable, np.nan_to_num(self.probability).argmax(1) == self.label, np.nan)

    @property
    def accuracies(self) -> list[float]:
        """Accuracy of each fold."""
        return [float(np.nanmean(self.right[self.fold == fold])) for fold in np.unique(self.fold)]

    def accuracy_cells(self) -> list[str]:
        """Returns mean and standard deviation over folds, right of all images, and their share with its interval."""
        over_folds = [100 * accuracy for accuracy in self.accuracies]
        right, images = int(np.nansum(self.right)), int((~np.isnan(self.right)).sum())
        low, high = wilson_interval(right, images)
        return [
            f"{statistics.fmean(over_folds):.2f} ± {statistics.stdev(over_folds):.2f}",
            f"{right:,} of {images:,}",
            f"{100 * right / images:.2f} [{100 * low:.2f}, {100 * high:.2f}]",
        ]


def collect_out_of_fold(cells: Sequence[Cell]) -> OutOfFold:
    """Evaluates the finished runs of one arm, one of each fold, each on its own fold.

    Raises:
        UserError: The images have changed since the runs, or an image is not in exactly one fold.
    """
    parts = [_answers(cell) for cell in cells]
    (classes, *_) = (part.classes for part in parts)
    names = [name for part in parts for name in part.names]
    _require_each_once(names, cells[0])
    label, fold, probability = (
        np.concatenate([getattr(part, column) for part in parts]) for column in ("label", "fold", "probability")
    )
    order = sorted(range(len(names)), key=lambda row: (label[row], natural_key(names[row])))
    return OutOfFold([names[row] for row in order], classes, label[order], fold[order], probability[order])


def _answers(cell: Cell) -> OutOfFold:
    run = cell.finished_run()
    assert run is not None
    model, data, recorder, _ = evaluate_run(run, cell.settings["data"])
    dataset, answers = data.dataset("val"), recorder.answers
    assert dataset.targets is not None
    assert answers.logits is not None
    probability = np.full((len(dataset), len(data.classes)), np.nan, np.float32)
    probability[answers.samples] = (torch.from_numpy(answers.logits) / model.temperature).softmax(1).numpy()
    fold = np.full(len(dataset), cell.fold)
    return OutOfFold([*dataset.names], data.classes.names, dataset.targets, fold, probability)


def _require_each_once(names: list[str], cell: Cell) -> None:
    """Raises ``UserError`` unless the folds hold each training image of the data set exactly once."""
    whole = {**cell.settings["data"], "cache": "none", "fraction": 1.0, "seed": cell.seed}
    data = ImageFolderDataModule(**whole)
    data.setup("fit")
    counts = Counter(names)
    counts.subtract([*data.dataset("train").names, *data.dataset("val").names])
    if wrong := sorted((name for name, count in counts.items() if count), key=natural_key):
        raise UserError(
            f"{len(wrong)} images of {data.root} are not in exactly one fold of the runs ({listed(wrong)}), so the "
            "data have changed since: restore them, or choose another --name"
        )


def write_out_of_fold(path: Path, answers: OutOfFold) -> None:
    """Writes one row per image: its name, label and fold, and the probability of each class."""
    classes = [to_cell(name) for name in answers.classes]
    header = ["image_name", "label", "fold", *(to_cell(f"p({name})") for name in answers.classes)]
    rows = (
        [to_cell(name), classes[label], str(fold), *("" if np.isnan(p) else f"{p:.9g}" for p in probability)]
        for name, label, fold, probability in zip(
            answers.names, answers.label, answers.fold, answers.probability, strict=True
        )
    )
    with atomic_file(path) as temporary:
        write_csv(temporary, header, rows)
