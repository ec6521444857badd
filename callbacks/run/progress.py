"""The progress of a command on a terminal: one line, whatever its width."""

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from typing_extensions import override

from callbacks.run.checkpoints import BestWeights
from callbacks.trainer_parts import callbacks_of, data_of
from lightning_modules.classifier import MONITOR

SECONDS_BETWEEN_UPDATES = 0.25
SHORTEST_BAR = 6
SPELLINGS = {  # long and short
    "left": ("{} left", "{} left"),
    "images/s": ("{} images/s", "{}/s"),
    "train/loss": ("train/loss {}", "loss {}"),
    MONITOR: (f"{MONITOR} {{}}", "val {}"),
    "best": ("best {}", "best {}"),
}
LEFT_OUT_FIRST = ("images/s", "train/loss", "best", MONITOR)


class ProgressLine(ProgressBar):
    """Shows the epoch, a bar, the time left, images per second, the last step's loss and accuracies of validation.

    Lightning's bars show every logged metric, which with eight of them breaks into many lines on 80 columns. All of
    them stand in the epoch's line, which ``EpochLog`` prints above this one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._progress: Progress | None = None
        self._enabled = True
        self._title = ""
        self._done, self._total = 0, 0
        self._begun, self._batches, self._images = 0.0, 0, 0  # of the bar
        self._fit_begun, self._fit_batches = 0.0, 0  # of training in this process
        self._shown_at = 0.0

    @override
    def disable(self) -> None:
        self._enabled = False

    @override
    def enable(self) -> None:
        self._enabled = True

    def _begin(self, title: str, total: float, done: int = 0) -> None:
        self._title, self._total, self._done = title, int(total) if total != float("inf") else 0, done
        self._begun, self._batches, self._images, self._shown_at = time.monotonic(), 0, 0, 0.0
        if self._enabled and self._progress is None:
            # Its bar takes what the other columns leave; prints of others appear above it.
            columns = TextColumn("{task.description}"), BarColumn(None), TextColumn("{task.fields[numbers]}")
            self._progress = Progress(*columns, console=Console(), expand=True, auto_refresh=False, transient=True)
            self._progress.start()
            self._progress.add_task("", numbers="")

    def _advance(self, trainer: Trainer, batch: Any, seconds_left: float | None = None, loss: Any = None) -> None:
        """Counts a batch, and draws from time to time: to read the loss is to wait for a GPU."""
        self._done += 1
        self._batches += 1
        self._images += len(batch.images) * trainer.world_size
        now = time.monotonic()
        if self._progress is None or now - self._shown_at < SECONDS_BETWEEN_UPDATES:
            return
        self._shown_at = now
        seconds = max(now - self._begun, 1e-9)
        if seconds_left is None:
            seconds_left = seconds / self._batches * (self._total - self._done)
        numbers = {"left": _clock(max(0.0, seconds_left)), "images/s": f"{self._images / seconds:.0f}"}
        if loss is not None:
            numbers["train/loss"] = f"{loss.item():.3f}"
        if trainer.training and MONITOR in trainer.callback_metrics:
            numbers[MONITOR] = f"{trainer.callback_metrics[MONITOR].item():.3f}"
        best = [callback.best[MONITOR] for callback in callbacks_of(trainer, BestWeights) if MONITOR in callback.best]
        if best:
            numbers["best"] = f"{best[0]:.3f}"
        width = self._progress.console.width - len(self._title) - SHORTEST_BAR - 3
        self._progress.update(
            self._progress.task_ids[0],
            description=self._title,
            total=self._total or None,
            completed=self._done,
            numbers=fitting(numbers, width),
            refresh=True,
        )

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._fit_begun, self._fit_batches = time.monotonic(), 0
        _, done = data_of(trainer).resume_point()
        if done:  # then Lightning starts no epoch
            self._begin_epoch(trainer, done)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin_epoch(trainer)

    def _begin_epoch(self, trainer: Trainer, done: int = 0) -> None:
        self._begin(f"epoch {trainer.current_epoch + 1}/{last_epoch(trainer)}", trainer.num_training_batches, done)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        epochs_to_come = max(0, (trainer.max_epochs or 0) - trainer.current_epoch - 1)
        to_come = self._total - self._done - 1 + epochs_to_come * self._total
        if trainer.max_steps >= 0:
            to_come = min(to_come, (trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches)
        self._fit_batches += 1
        pace = (time.monotonic() - self._fit_begun) / self._fit_batches  # with the validations so far
        self._advance(trainer, batch, pace * to_come, outputs["loss"])

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        counts = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        self._begin("validating", sum(counts))

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin("testing", sum(trainer.num_test_batches))

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin("predicting", sum(trainer.num_predict_batches))

    @override
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._advance(trainer, batch)

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._progress:
            self._progress.stop()
            self._progress = None

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "")


def last_epoch(trainer: Trainer) -> int | str:
    """Returns the number of the last epoch; ``?`` if only other limits end the run."""
    return trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else "?"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds))).removeprefix("0:")


def fitting(numbers: dict[str, str], width: int) -> str:
    """Formats the numbers with their names to fit into ``width`` columns.

    Names are shortened first; then images per second and the loss are left out.

    >>> numbers = {"left": "12:34", "images/s": "101", "train/loss": "2.310", "val/accuracy": "0.412"}
    >>> fitting(numbers, 70)
    '12:34 left  101 images/s  train/loss 2.310  val/accuracy 0.412'
    >>> fitting(numbers, 40)
    '12:34 left  101/s  loss 2.310  val 0.412'
    >>> fitting(numbers, 22)
    '12:34 left  val 0.412'
    """

    def line(size: int, left_out: Sequence[str] = ()) -> str:
        return "  ".join(SPELLINGS[name][size].format(x) for name, x in numbers.items() if name not in left_out)

    lines = [line(0), *(line(1, LEFT_OUT_FIRST[:count]) for count in range(len(LEFT_OUT_FIRST) + 1))]
    return next((text for text in lines if len(text) <= width), lines[-1])
