"""Writes ``prediction.csv``, its zip and what was asked for beside them: every image once, in order, or nothing."""

import csv
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.atomic_file import atomic_file, require_writable
from datamodules.errors import UserError, listed
from datamodules.image_folder import ImageFolderDataModule
from datamodules.sampler import BLANK
from datamodules.submission_template import NAME_COLUMN
from lightning_modules.classifier import ImageClassifier


class PredictionWriter(Callback):
    """Collects the predictions of all processes in tables and writes them as rows of names.

    Own code, because Lightning leaves the predictions of several processes striped over them and never gathers them.
    Here each process enters its samples in tables with a row for each image, and the tables' sum over processes holds
    the predictions and how often each image came. No file is shared: nothing can be left over from another run, and
    machines need no common disk.

    Args:
        path: The CSV file; the others stand beside it with the same stem.
        top_k: Also write ``<stem>_topk.csv`` with the k most probable classes of each image, where k is above 0.
        probabilities: Also write ``<stem>_probabilities.npz`` with ``image_name`` ``(images,)``, ``class_name``
            ``(classes,)`` and ``probability`` ``(images, classes)``, float32.

    Raises:
        UserError: ``path`` does not end in ``.csv``, or ``top_k`` is negative.
    """

    def __init__(self, path: str = "prediction.csv", top_k: int = 0, probabilities: bool = False) -> None:
        self.path = Path(path)
        self.top_k = top_k
        self.probabilities = probabilities
        if self.path.suffix != ".csv":
            raise UserError(f"expected --prediction.path to end in .csv, got {path}: rename it")
        if top_k < 0:
            raise UserError(f"expected --prediction.top_k of 0 or more, got {top_k}: 0 writes no such file")
        self._tables: dict[str, Tensor] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks what can be checked before the first batch.

        Raises:
            UserError: The folder cannot be written to, or there are fewer than ``top_k`` classes.
        """
        if stage != "predict":
            return
        if self.top_k > len(_model(pl_module).classes):
            raise UserError(
                f"expected --prediction.top_k of at most {len(_model(pl_module).classes)}, the number of classes, got "
                f"{self.top_k}: lower it"
            )
        if trainer.is_global_zero:
            require_writable(self.path.parent, "--prediction.path")
            if self.path.is_dir():
                raise UserError(f"expected --prediction.path to name a file, {self.path} is a folder: choose another")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes empty tables; the row after the last image takes the blanks that fill up batches."""
        rows, classes = len(_data(trainer).prediction_names) + 1, len(_model(pl_module).classes)
        widths: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {"count": (torch.long, ()), "label": (torch.long, ())}
        if self.top_k:
            widths |= {"top_label": (torch.long, (self.top_k,)), "top_probability": (torch.float32, (self.top_k,))}
        if self.probabilities:
            widths["probability"] = (torch.float32, (classes,))
        self._tables = {
            name: torch.zeros(rows, *width, dtype=dtype, device=pl_module.device)
            for name, (dtype, width) in widths.items()
        }

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
        samples, probabilities = outputs
        rows = torch.where(samples == BLANK, len(self._tables["count"]) - 1, samples)
        self._tables["count"].index_add_(0, rows, torch.ones_like(rows))
        self._tables["label"][rows] = probabilities.argmax(1)
        if self.top_k:
            self._tables["top_probability"][rows], self._tables["top_label"][rows] = probabilities.topk(self.top_k)
        if self.probabilities:
            self._tables["probability"][rows] = probabilities

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds up the processes' tables and writes the files on the first.

        Raises:
            UserError: An image came never or more than once; nothing is written.
        """
        tables = {
            name: trainer.strategy.reduce(table, reduce_op="sum")[:-1].cpu().numpy()
            for name, table in self._tables.items()
        }
        names = _data(trainer).prediction_names
        missing = [name for name, count in zip(names, tables["count"], strict=True) if count == 0]
        repeated = [name for name, count in zip(names, tables["count"], strict=True) if count > 1]
        if missing or repeated:
            raise UserError(
                f"expected one prediction for each of {len(names)} images, got none for {listed(missing) or 'none'} "
                f"and several for {listed(repeated) or 'none'}: predict again without --trainer.limit_predict_batches"
            )
        if trainer.is_global_zero:
            self._write(names, _model(pl_module).classes.names, tables)

    def _write(self, names: list[str], classes: Sequence[str], tables: dict[str, np.ndarray]) -> None:
        stem = self.path.with_suffix("")
        if self.probabilities:
            path = Path(f"{stem}_probabilities.npz")
            with atomic_file(path) as temporary, open(temporary, "wb") as file:
                np.savez_compressed(
                    file,
                    image_name=np.array(names, str),
                    class_name=np.array(classes, str),
                    probability=tables["probability"],
                )
        if self.top_k:
            ranks = range(1, self.top_k + 1)
            header = [NAME_COLUMN, *(f"label_{rank}" for rank in ranks), *(f"probability_{rank}" for rank in ranks)]
            top = zip(names, tables["top_label"].tolist(), tables["top_probability"], strict=True)
            rows = ([name, *(classes[i] for i in labels), *map(str, values)] for name, labels, values in top)
            with atomic_file(Path(f"{stem}_topk.csv")) as temporary:
                _write_csv(temporary, header, rows)
        labels = (classes[position] for position in tables["label"].tolist())
        header = [NAME_COLUMN, "pred_label"]
        # Both get their names at the end, or neither does.
        with atomic_file(self.path) as csv_file, atomic_file(self.path.with_suffix(".zip")) as zip_file:
            _write_csv(csv_file, header, zip(names, labels, strict=True))
            _write_zip(zip_file, self.path.name, csv_file.read_bytes())
        print(f"{len(names):,} predictions in {self.path} and {self.path.with_suffix('.zip')}")


def _write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _write_zip(path: Path, name: str, content: bytes) -> None:
    """Packs one file, and compares what a reader will get."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # dated 1980: always equal bytes
    with zipfile.ZipFile(path) as archive:
        if archive.read(name) != content:
            raise OSError(f"the zip does not hold {name} as it was written")


def _data(trainer: Trainer) -> ImageFolderDataModule:
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, ImageFolderDataModule):
        raise TypeError(f"expected an ImageFolderDataModule to predict with, got {type(data).__name__}")
    return data


def _model(pl_module: LightningModule) -> ImageClassifier:
    if not isinstance(pl_module, ImageClassifier):
        raise TypeError(f"expected an ImageClassifier to predict with, got {type(pl_module).__name__}")
    return pl_module
