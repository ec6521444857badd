"""Writes ``prediction.csv`` and its zip: every image once, in order, or nothing."""

import csv
import zipfile
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.atomic_file import atomic_file
from datamodules.errors import UserError, some
from datamodules.image_folder import ImageFolderDataModule
from datamodules.submission_template import NAME_COLUMN
from lightning_modules.classifier import ImageClassifier

HEADER = (NAME_COLUMN, "pred_label")


class PredictionWriter(Callback):
    """Collects ``(sample, class)`` pairs from all processes and writes them as rows of names.

    Own code, because Lightning leaves the predictions of several processes striped over them and never gathers them.
    Here each process marks its samples in a table, and the tables' sum shows both the classes and any sample that came
    twice or never: no file is shared, so none can be left over from another run.

    Args:
        path: The CSV file; the zip beside it has the same stem.

    Raises:
        UserError: ``path`` does not end in ``.csv``.
    """

    def __init__(self, path: str = "prediction.csv") -> None:
        self.path = Path(path)
        if self.path.suffix != ".csv":
            raise UserError(f"expected --prediction.path to end in .csv, got {path}: rename it")
        self._table = torch.empty(0)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes an empty table: how often each sample came, and the sum of its class indices."""
        self._table = torch.zeros(2, len(_data(trainer).prediction_names), dtype=torch.long, device=pl_module.device)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Enters a batch."""
        samples, classes = outputs
        self._table[0].index_add_(0, samples, torch.ones_like(samples))
        self._table[1].index_add_(0, samples, classes)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds up the processes' tables and writes the files on the first.

        Raises:
            UserError: A sample came twice or never; nothing is written.
        """
        counts, classes = trainer.strategy.reduce(self._table, reduce_op="sum").cpu()
        names = _data(trainer).prediction_names
        wrong = [name for name, count in zip(names, counts.tolist(), strict=True) if count != 1]
        if wrong:
            raise UserError(
                f"expected one prediction for each image, got none or several for {some(wrong)}: predict again"
            )
        if trainer.is_global_zero:
            self._write(names, classes, pl_module)

    def _write(self, names: list[str], classes: Tensor, model: LightningModule) -> None:
        assert isinstance(model, ImageClassifier)
        labels = [model.classes.names[position] for position in classes.tolist()]
        with atomic_file(self.path) as temporary:
            with open(temporary, "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(HEADER)
                writer.writerows(zip(names, labels, strict=True))
            content = temporary.read_bytes()
        archive = self.path.with_suffix(".zip")
        with atomic_file(archive) as temporary:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file_zip:
                file_zip.writestr(zipfile.ZipInfo(self.path.name), content, zipfile.ZIP_DEFLATED)  # dated 1980, always
            with zipfile.ZipFile(temporary) as file_zip:
                if file_zip.read(self.path.name) != content:
                    raise OSError(f"expected {archive} to hold {self.path.name} as it is, read back something else")
        print(f"{len(names):,} predictions in {self.path} and {archive}")


def _data(trainer: Trainer) -> ImageFolderDataModule:
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, ImageFolderDataModule):
        raise TypeError(f"expected an ImageFolderDataModule to predict with, got {type(data).__name__}")
    return data
