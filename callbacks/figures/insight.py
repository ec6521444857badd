"""Figures and tables of a fit for TensorBoard: where the model fails, and what its attention does."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from typing_extensions import override

from callbacks.figures.draw import (
    class_accuracy_figure,
    confusion_figure,
    images_figure,
    short,
    sizes_figure,
    worst_images_figure,
)
from callbacks.guards.size_budget import SizeBudget
from callbacks.predictions.answers import AnswerCollector, Answers, ValidationAnswers, most_confused
from callbacks.processes import agree
from callbacks.run.exact_resume import resumed_from
from callbacks.run.loop_state import epochs_done
from callbacks.trainer_parts import callbacks_of, data_of, is_fast_dev_run
from datamodules.files.csv_cells import to_utf8
from datamodules.files.errors import UserError
from datamodules.image_dataset import Batch
from datamodules.images.transforms import denormalize
from datamodules.sampler import BLANK
from lightning_modules.classifier import ImageClassifier
from lightning_modules.metrics.gate_statistics import GateStatistics
from lightning_modules.network.model_size import part_sizes

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter  # half a second, which a prediction does not need

MAX_SHARE = 0.03  # of the fit's time
FIRST_GUESS = 2.0  # seconds that drawing may take
SHOWN = 16


class Insight(ValidationAnswers):
    """Writes the confusion matrix, most confused pairs, accuracy by class, worst images and gate statistics.

    At the start of a run it also writes an augmented training batch and the model's sizes beside the budget.

    Args:
        every_n_epochs: Number of epochs between drawings; 0 for none. By default after the last epoch, and before it as
            often as drawing takes less than 3 % of the fit's time.

    Raises:
        UserError: The number is negative.
    """

    def __init__(self, every_n_epochs: int | None = None) -> None:
        if every_n_epochs is not None and every_n_epochs < 0:
            raise UserError(f"--insight.every_n_epochs must be at least 0, got {every_n_epochs}: 0 turns it off")
        self.every_n_epochs = every_n_epochs
        # Of the current or latest validation
        self._gates: GateStatistics | None = None
        self._due = False
        self._epoch = 0
        self._start = 0.0
        self._drawing = 0.0  # seconds so far
        self._longest = FIRST_GUESS

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = time.monotonic()
        writer = self._writer(trainer)
        if writer and isinstance(pl_module, ImageClassifier) and not resumed_from(trainer):
            for budget in callbacks_of(trainer, SizeBudget):
                figure = sizes_figure(part_sizes(pl_module.network, budget.dtype), budget.limit)
                writer.add_figure("model/size", figure, 0, close=False)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if trainer.current_epoch or batch_idx or not isinstance(pl_module, ImageClassifier):
            return
        if writer := self._writer(trainer):  # after the batch, as EpochLog counts time before it as waiting for data
            images = denormalize(batch.images[:SHOWN])
            names = batch_names(batch, pl_module.classes.names)[:SHOWN]
            arrays = list(images.permute(0, 2, 3, 1).cpu().numpy())
            writer.add_figure("data/augmented training batch", images_figure(arrays, names), 0, close=False)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        watches = (
            isinstance(pl_module, ImageClassifier)
            and self.every_n_epochs != 0
            and not trainer.sanity_checking
            and any(isinstance(x, TensorBoardLogger) for x in trainer.loggers)
        )
        self._answers = AnswerCollector(len(data_of(trainer).dataset("val"))) if watches else None
        self._due = watches and self._is_due(trainer)
        self._epoch = trainer.current_epoch
        if self._due and pl_module.hparams["compile"] == "none":  # compiled modules take no hooks
            self._gates = GateStatistics(pl_module.network)  # type: ignore[arg-type]

    def _is_due(self, trainer: Trainer) -> bool:
        epoch = trainer.current_epoch + 1
        if self.every_n_epochs is not None:
            return epoch % self.every_n_epochs == 0
        if epochs_done(trainer) == epoch:  # the validation of a run that had none, after its last epoch
            return True
        allowed = MAX_SHARE * (time.monotonic() - self._start)
        # Only the first process draws, so it decides.
        affordable = agree(trainer, int(trainer.is_global_zero and self._drawing + self._longest <= allowed))
        next_epoch = epoch + (trainer.check_val_every_n_epoch or 1)
        is_last = trainer.max_epochs is not None and 0 <= trainer.max_epochs < next_epoch  # -1 is unlimited
        return is_last or 0 <= trainer.max_steps <= trainer.global_step or bool(affordable)

    @override
    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._gates:
            self._gates.real = batch.samples != BLANK if getattr(batch, "num_blanks", 0) else None

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._answers and self._due:
            self._draw(trainer, pl_module, self._answers)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._answers and self.every_n_epochs is None:  # the validation did not know that it was the last
            self._draw(trainer, pl_module, self._answers)

    def _draw(self, trainer: Trainer, pl_module: LightningModule, collector: AnswerCollector) -> None:
        start = time.monotonic()
        answers = collector.finish(trainer)
        statistics = self._gates.finish() if self._gates else {}
        self._answers, self._gates = None, None
        if isinstance(pl_module, ImageClassifier) and (writer := self._writer(trainer)):
            self._write(writer, trainer, pl_module, answers)
            for name, value in statistics.items():
                writer.add_scalar(f"gates/{name}", value, self._epoch)
        seconds = time.monotonic() - start
        self._drawing, self._longest = self._drawing + seconds, max(self._longest, seconds)

    def _write(self, writer: "SummaryWriter", trainer: Trainer, model: ImageClassifier, answers: Answers) -> None:
        names, epoch = model.classes.names, self._epoch
        confusion = answers.confusion(len(names))
        writer.add_figure("val/confusion", confusion_figure(confusion, names), epoch, close=False)
        writer.add_figure("val/accuracy by class", class_accuracy_figure(confusion, names), epoch, close=False)
        worst = worst_images_figure(data_of(trainer).dataset("val"), answers, names)
        writer.add_figure("val/worst images", worst, epoch, close=False)
        writer.add_text("val/most confused", pairs_table(confusion, names), epoch)

    def _writer(self, trainer: Trainer) -> "SummaryWriter | None":
        """Returns the TensorBoard writer of the first process, or None if nothing is to be drawn."""
        if self.every_n_epochs == 0 or not trainer.is_global_zero or is_fast_dev_run(trainer):
            return None
        return next((x.experiment for x in trainer.loggers if isinstance(x, TensorBoardLogger)), None)


def batch_names(batch: Batch, names: Sequence[str]) -> list[str]:
    """Returns the class of each image of a training batch, or its two classes with their shares if it is mixed."""
    own = [short(names[target]) for target in batch.targets.tolist()]
    if not batch.mix:
        return own
    share = batch.mix.share
    return [
        f"{name} {share:.1f}\n+ {before} {1 - share:.1f}" for name, before in zip(own, own[-1:] + own, strict=False)
    ]


def pairs_table(confusion: np.ndarray, names: Sequence[str]) -> str:
    """Returns the most confused pairs as a Markdown table."""
    totals = confusion.sum(1)
    rows = [
        f"| {_escaped(names[i])} | {_escaped(names[j])} | {count} of {totals[i]} |"
        for i, j, count in most_confused(confusion)
    ]
    return "\n".join(["| class | taken for | images |", "| --- | --- | --- |", *rows])


def _escaped(name: str) -> str:
    return to_utf8(name).replace("|", "\\|").replace("<", "&lt;")
