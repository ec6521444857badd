"""What the runs of all folds answer for the images that they did not train on: every image once."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from callbacks.predictions.out_of_fold import OutOfFold
from datamodules import ImageFolderDataModule
from datamodules.class_index import natural_key
from datamodules.files.errors import UserError, listed
from scripts.ablation.runs import Cell
from scripts.evaluation import evaluate_run


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
    evaluation = evaluate_run(run, cell.settings["data"], cell.settings["trainer"]["accelerator"])
    dataset, answers, classes = evaluation.data.dataset("val"), evaluation.answers, evaluation.data.classes.names
    assert dataset.targets is not None
    assert answers.logits is not None
    probability = np.full((len(dataset), len(classes)), np.nan, np.float32)
    logits = torch.from_numpy(answers.logits)
    probability[answers.samples] = (logits / evaluation.model.temperature).softmax(1).numpy()
    fold = np.full(len(dataset), cell.fold)
    return OutOfFold([*dataset.names], classes, dataset.targets, fold, probability)


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
