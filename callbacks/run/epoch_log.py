"""Logging of each epoch: to the loggers, and as a line of text if there is no progress bar."""

import time
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.trainer.states import TrainerFn
from typing_extensions import override

from callbacks.run.checkpoints import BestWeights
from callbacks.run.exact_resume import resumed_from
from callbacks.run.progress import ProgressLine, last_epoch
from callbacks.trainer_parts import callbacks_of
from lightning_modules.classifier import MONITOR

BEST = f"best/{MONITOR}"


class EpochLog(Callback):
    """Logs metrics, best accuracy so far, learning rate, seconds, images per second and waiting time of each epoch.

    Lightning logs against steps; readers compare epochs. ``epoch_seconds`` includes validation; ``images_per_second``
    excludes it and counts the images of all processes. ``data_wait_share`` is the share of the training time that the
    first process spent waiting for its data loader.
    """

    def __init__(self) -> None:
        self._learning_rate = 0.0
        self._start = 0.0
        self._validation_start = 0.0
        self._validation_seconds = 0.0
        self._images = 0
        self._waited = 0.0
        self._waits_since = 0.0
        self._validated = False
        self._is_inside_epoch = False

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                settings = {name: value for name, value in pl_module.hparams.items() if name != "class_names"}
                # Given a metric, it writes a first value, which a resumed run has written before.
                logger.log_hyperparams(settings, None if resumed_from(trainer) else {BEST: 0.0})

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._learning_rate = trainer.optimizers[0].param_groups[0]["lr"]  # stepped before the epoch's end
        self._start = time.monotonic()
        self._validation_seconds, self._images, self._validated = 0.0, 0, False
        self._is_inside_epoch = True
        self._waited, self._waits_since = 0.0, self._start

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        self._waited += time.monotonic() - self._waits_since
        self._images += len(batch.images) * trainer.world_size  # type: ignore[attr-defined]

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self._waits_since = time.monotonic()

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation_start = _now(trainer)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation_seconds += time.monotonic() - self._validation_start
        self._validated = True
        is_extra = not self._is_inside_epoch and not trainer.sanity_checking  # of a run that had none
        if is_extra and trainer.state.fn == TrainerFn.FITTING:
            self._write(trainer, self._metrics(trainer, "val/"))

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seconds = _now(trainer) - self._start
        training_seconds = max(seconds - self._validation_seconds, 1e-9)  # clocks may be coarse
        self._is_inside_epoch = False
        numbers = self._metrics(trainer, "" if self._validated else "train/")  # else val/ is of an earlier epoch
        numbers |= {
            "lr": self._learning_rate,
            "epoch_seconds": seconds,
            "images_per_second": self._images / training_seconds,
            "data_wait_share": self._waited / training_seconds,
        }
        self._write(trainer, numbers)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._is_inside_epoch = False

    def _metrics(self, trainer: Trainer, prefix: str) -> dict[str, float]:
        metrics = sorted(trainer.callback_metrics.items())
        return {name: value.item() for name, value in metrics if name.startswith(prefix)}

    def _write(self, trainer: Trainer, numbers: dict[str, float]) -> None:
        best: dict[str, float] = {}
        for saver in callbacks_of(trainer, BestWeights):  # called after this callback: it does not know this epoch yet
            best[BEST] = (numbers if saver.is_best(trainer, numbers) else saver.best).get(MONITOR, 0.0)
        for logger in trainer.loggers:
            logger.log_metrics({**numbers, **best}, step=trainer.current_epoch)
        if trainer.is_global_zero and isinstance(trainer.progress_bar_callback, ProgressLine | None):
            values = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
            print(f"epoch {trainer.current_epoch + 1}/{last_epoch(trainer)}  {values}", flush=True)

    @override
    def state_dict(self) -> dict[str, Any]:
        seconds = time.monotonic() - self._start
        return {
            "learning_rate": self._learning_rate,
            "seconds": seconds,
            "images": self._images,
            "waited": self._waited,
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Inside an epoch; after one, the next start resets all.
        self._learning_rate = state_dict["learning_rate"]
        self._start = self._waits_since = time.monotonic()
        self._start -= state_dict["seconds"]
        self._images, self._waited = state_dict["images"], state_dict.get("waited", 0.0)
        self._is_inside_epoch = True


def _now(trainer: Trainer) -> float:
    """Returns the monotonic time in seconds once the device, whose kernels run asynchronously, has finished."""
    device = trainer.strategy.root_device
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.monotonic()
