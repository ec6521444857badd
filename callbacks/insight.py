"""Pictures and tables of a fit for TensorBoard: where the model fails, and whether its attention does anything."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from callbacks.answers import AnswerCollector, Answers, most_confused
from callbacks.figures import (
    class_accuracy_figure,
    confusion_figure,
    images_figure,
    short,
    sizes_figure,
)
from callbacks.processes import agree, gather
from callbacks.size_budget import SizeBudget
from datamodules.csv_cells import to_cell
from datamodules.errors import UserError
from datamodules.image_dataset import Batch
from datamodules.sampler import BLANK
from datamodules.transforms import denormalize
from lightning_modules.classifier import ImageClassifier
from lightning_modules.gate_statistics import GateStatistics, Moments, summarize
from lightning_modules.model_size import model_size_bytes

MAX_SHARE = 0.03
WORST, PAIRS, SHOWN = 16, 20, 16


class Insight(Callback):
    """Writes the confusion matrix, the most confused pairs, accuracy by class, the worst images and gate statistics.

    And once, at the start, an augmented training batch and the sizes beside the budget.

    Args:
        every_n_epochs: After how many epochs; 0 for never. By default as often as drawing stays below 3 % of the fit's
            time, and after the last one.

    Raises:
        UserError: A negative number.
    """

    def __init__(self, every_n_epochs: int | None = None) -> None:
        if every_n_epochs is not None and every_n_epochs < 0:
            raise UserError(f"expected --insight.every_n_epochs of 0 or more, got {every_n_epochs}: 0 turns it off")
        self.every_n_epochs = every_n_epochs
        self._answers = AnswerCollector()
        self._gates: GateStatistics | None = None
        self._due = False
        self._start = 0.0
        self._drawing = 0.0  # seconds
        self._longest = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the sizes."""
        self._start = time.monotonic()
        writer = self._writer(trainer)
        if writer and isinstance(pl_module, ImageClassifier) and not trainer.ckpt_path:
            budget = next((x for x in trainer.callbacks if isinstance(x, SizeBudget)), None)  # type: ignore[attr-defined]
            if budget:
                _add_figure(writer, "model/size", sizes_figure(part_sizes(pl_module), budget.limit), 0)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Draws the first batch, as augmentation left it."""
        writer = self._writer(trainer)
        if writer and trainer.global_step == 0 and batch_idx == 0 and isinstance(pl_module, ImageClassifier):
            images = denormalize(batch.images[:SHOWN])
            names = [short(pl_module.classes.names[target]) for target in batch.targets[:SHOWN].tolist()]
            _add_figure(writer, "data/augmented training batch", images_figure(_arrays(images), names), 0)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to watch, where there is a drawing due."""
        self._due = self._is_due(trainer) and isinstance(pl_module, ImageClassifier)
        if self._due:
            self._gates = GateStatistics(pl_module.network)  # type: ignore[arg-type]
            self._gates.attach()

    def _is_due(self, trainer: Trainer) -> bool:
        if trainer.sanity_checking or not any(isinstance(x, TensorBoardLogger) for x in trainer.loggers):
            return False
        epoch = trainer.current_epoch + 1
        if self.every_n_epochs is not None:
            return self.every_n_epochs > 0 and epoch % self.every_n_epochs == 0
        allowed = MAX_SHARE * (time.monotonic() - self._start)
        # The first process draws, and so decides.
        affordable = agree(trainer, int(trainer.is_global_zero and self._drawing + self._longest <= allowed))
        return epoch == trainer.max_epochs or bool(affordable)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Says which images count."""
        if self._gates:
            self._gates.real = batch.samples != BLANK

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the answers."""
        if self._due:
            self._answers.add(batch, outputs)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws."""
        if not self._due or self._gates is None or not isinstance(pl_module, ImageClassifier):
            return
        self._due = False
        self._gates.detach()
        answers = self._answers.finish(trainer)
        parts = gather(trainer, {key: moments.to_cpu() for key, moments in self._gates.moments.items()})
        self._gates = None
        writer = self._writer(trainer)
        if writer:
            start = time.monotonic()
            self._write(writer, trainer, pl_module, answers)
            for name, value in summarize(_merged(parts)).items():
                writer.add_scalar(f"gates/{name}", value, trainer.current_epoch)
            seconds = time.monotonic() - start
            self._drawing, self._longest = self._drawing + seconds, max(self._longest, seconds)

    def _write(self, writer: SummaryWriter, trainer: Trainer, model: ImageClassifier, answers: Answers) -> None:
        names, epoch = model.classes.names, trainer.current_epoch
        confusion = answers.confusion(len(names))
        _add_figure(writer, "val/confusion", confusion_figure(confusion, names), epoch)
        _add_figure(writer, "val/accuracy by class", class_accuracy_figure(confusion, names), epoch)
        images, titles = worst_images(trainer.datamodule.dataset("val"), answers, names, WORST)  # type: ignore[attr-defined]
        _add_figure(writer, "val/worst images", images_figure(images, titles), epoch)
        writer.add_text("val/most confused", pairs_table(confusion, names), epoch)

    def _writer(self, trainer: Trainer) -> SummaryWriter | None:
        """The first process's event file, unless there is none, or nothing is to be drawn."""
        if self.every_n_epochs == 0 or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return None
        return next((x.experiment for x in trainer.loggers if isinstance(x, TensorBoardLogger)), None)


def part_sizes(model: ImageClassifier) -> dict[str, int]:
    """Bytes of each part of the network that has any."""
    sizes = {name: model_size_bytes(part) for name, part in model.network.named_children()}
    return {name: size for name, size in sizes.items() if size}


def worst_images(
    dataset: Any, answers: Answers, names: Sequence[str], count: int
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


def pairs_table(confusion: np.ndarray, names: Sequence[str]) -> str:
    """The most confused pairs in Markdown."""
    totals = confusion.sum(1)
    rows = [
        f"| {_escaped(names[i])} | {_escaped(names[j])} | {count} of {totals[i]} |"
        for i, j, count in most_confused(confusion, PAIRS)
    ]
    return "\n".join(["| class | taken for | images |", "| --- | --- | --- |", *rows])


def _escaped(name: str) -> str:
    return to_cell(name).replace("|", "\\|").replace("<", "&lt;")


def _arrays(images: Tensor) -> list[np.ndarray]:
    return list(images.permute(0, 2, 3, 1).cpu().numpy())


def _merged(parts: list[dict[tuple[str, str], Moments]]) -> dict[tuple[str, str], Moments]:
    first, *others = parts
    for part in others:
        for key, moments in part.items():
            first[key].merge(moments)
    return first


def _add_figure(writer: SummaryWriter, tag: str, figure: Figure, epoch: int) -> None:
    with torch.inference_mode(False):  # in which TensorBoard's conversion of arrays may find itself
        writer.add_figure(tag, figure, epoch, close=False)
