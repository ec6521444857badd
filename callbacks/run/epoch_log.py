"""What each epoch did: to the loggers, against epochs, and as a line where there is no progress bar."""

import time
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger

from callbacks.run.exact_resume import resumed_from
from callbacks.run.progress import ProgressLine
from lightning_modules.classifier import MONITOR

BEST = f"best/{MONITOR}"


class EpochLog(Callback):
    """Logs the metrics, the best accuracy so far, the learning rate, an epoch's seconds, images per second and waiting.

    Lightning's own logging counts steps; a reader compares epochs. ``epoch_seconds`` includes validation,
    ``images_per_second`` does not, and counts the images of all processes. ``data_wait_share`` is the part of the
    training time in which the first process waited for its loader.
    """

    def __init__(self) -> None:
        self._best = 0.0
        self._learning_rate = 0.0
        self._start = 0.0
        self._validation_start = 0.0
        self._validation_seconds = 0.0
        self._images = 0
        self._waited = 0.0
        self._waits_since = 0.0
        self._validated = False
        self._is_inside_epoch = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the hparams tab."""
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                settings = {name: value for name, value in pl_module.hparams.items() if name != "class_names"}
                # With the metric it writes a first value, which a resumed run has behind it.
                logger.log_hyperparams(settings, None if resumed_from(trainer) else {BEST: 0.0})

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock, and notes the learning rate: Lightning steps the schedule before the epoch's end."""
        self._learning_rate = trainer.optimizers[0].param_groups[0]["lr"]
        self._start = time.monotonic()
        self._validation_seconds, self._images, self._validated = 0.0, 0, False
        self._is_inside_epoch = True
        self._waited, self._waits_since = 0.0, self._start

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Counts images and the time since the batch before, which went into loading."""
        self._waited += time.monotonic() - self._waits_since
        self._images += len(batch.images) * trainer.world_size  # type: ignore[attr-defined]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Begins to wait."""
        self._waits_since = time.monotonic()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the training clock."""
        self._validation_start = _now(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the training clock again."""
        self._validation_seconds += time.monotonic() - self._validation_start
        self._validated = True
        if not self._is_inside_epoch and not trainer.sanity_checking:  # the one of a run that had none
            self._write(trainer, self._metrics(trainer, "val/"))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the epoch's numbers."""
        seconds = _now(trainer) - self._start
        self._is_inside_epoch = False
        numbers = self._metrics(trainer, "" if self._validated else "train/")  # those of val/ are of an earlier epoch
        numbers |= {
            "lr": self._learning_rate,
            "epoch_seconds": seconds,
            "images_per_second": self._images / (seconds - self._validation_seconds),
            "data_wait_share": self._waited / (seconds - self._validation_seconds),
        }
        self._write(trainer, numbers)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Expects no epoch's end for a validation that may follow."""
        self._is_inside_epoch = False

    def _metrics(self, trainer: Trainer, prefix: str) -> dict[str, float]:
        metrics = sorted(trainer.callback_metrics.items())
        return {name: value.item() for name, value in metrics if name.startswith(prefix)}

    def _write(self, trainer: Trainer, numbers: dict[str, float]) -> None:
        if MONITOR in numbers:
            self._best = max(self._best, numbers[MONITOR])
        for logger in trainer.loggers:
            logger.log_metrics({**numbers, BEST: self._best}, step=trainer.current_epoch)
        if trainer.is_global_zero and isinstance(trainer.progress_bar_callback, ProgressLine | None):
            values = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
            print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {values}", flush=True)

    def state_dict(self) -> dict[str, Any]:
        """The epoch so far."""
        seconds = time.monotonic() - self._start
        return {
            "best": self._best,
            "learning_rate": self._learning_rate,
            "seconds": seconds,
            "images": self._images,
            "waited": self._waited,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on inside the epoch; at the end of one, the next start makes all but the best anew."""
        self._best, self._learning_rate = state_dict["best"], state_dict["learning_rate"]
        self._start = self._waits_since = time.monotonic()
        self._start -= state_dict["seconds"]
        self._images, self._waited = state_dict["images"], state_dict.get("waited", 0.0)
        self._is_inside_epoch = True


def _now(trainer: Trainer) -> float:
    """Monotonic time in seconds, after the device has finished: kernels are launched asynchronously."""
    device = trainer.strategy.root_device
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.monotonic()
