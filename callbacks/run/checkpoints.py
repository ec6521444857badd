"""Saving of the best epoch's weights and of the state to resume from."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, WeightAveraging
from torch import Tensor
from typing_extensions import override

from callbacks.guards.size_budget import SizeBudget
from callbacks.processes import agree, agreement_is_due
from callbacks.run.loop_state import (
    can_go_on_inside_epoch,
    epoch_index,
    is_at_epoch_end,
    is_inside_step,
    redo_validation_on_resume,
    step_is_complete,
    validate_now,
)
from callbacks.run.run_folder import RunFolder
from callbacks.trainer_parts import callbacks_of, data_of, is_fast_dev_run
from datamodules.files.atomic_file import remove_leftovers, require_writable, write_bytes
from datamodules.files.errors import UserError
from lightning_modules.classifier import MONITOR, ImageClassifier
from lightning_modules.network.rounding import as_stored
from lightning_modules.trained_model import NETWORK_PREFIX, export_metadata
from lightning_modules.weights.pruning import without_masks


class BestWeights(Checkpoint):
    """Saves to the run folder after every epoch, and inside epochs on request; the owner of the best accuracy so far.

    ``checkpoints/last.ckpt`` is always written; ``checkpoints/best.ckpt`` and ``model.safetensors`` when the validation
    accuracy is higher than ever before, with the weights that were validated. An epoch cut short counts as the best,
    marked as ``partial``, only until a whole one is done; a run that would end without a validation gets one. Replaces
    Lightning 2.6's ModelCheckpoint, which skips ``last.ckpt`` in epochs that are not the best.

    Args:
        every_n_minutes: Minutes after which last.ckpt is also written inside an epoch; 0 for never.
        every_n_steps: Number of optimiser steps after which last.ckpt is also written; 0 for never.

    Raises:
        UserError: A number is negative.
    """

    def __init__(self, every_n_minutes: float = 15.0, every_n_steps: int = 0) -> None:
        for name, value in (("every_n_minutes", every_n_minutes), ("every_n_steps", every_n_steps)):
            if not value >= 0:
                raise UserError(f"--best.{name} must be at least 0, got {value}: 0 saves at the end of epochs only")
        self.every_n_minutes = every_n_minutes
        self.every_n_steps = every_n_steps
        self.best: dict[str, Any] = {}
        self._folder = ""  # the run folder that the best epoch was saved in
        self._run = RunFolder(Path())
        self._saved_at = time.monotonic()
        self._saved_step: float = math.inf  # before training begins
        self._stop_asked = False
        self._measured: dict[str, Tensor] = {}  # the module's state dict in the last validation, until it is saved
        self._saves_measured = False

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        # For Lightning 1.0 is "at the end of an epoch", and 1 is "after every batch"; a time is kept elsewhere.
        interval = getattr(trainer, "val_check_interval", "of a time")
        if not (isinstance(interval, float) and interval == 1.0):
            raise UserError(
                f"--trainer.val_check_interval {interval} validates inside epochs, but the best weights are saved at "
                "the end of epochs: leave it out"
            )
        if trainer.limit_val_batches == 0 and not is_fast_dev_run(trainer):
            raise UserError(
                f"--trainer.limit_val_batches {trainer.limit_val_batches} leaves no validation images to choose the "
                "best weights by: leave it out, or use 1 for a single batch"
            )
        self._run = RunFolder(Path(trainer.log_dir or "."))  # a collective operation, so all processes ask
        if not trainer.is_global_zero:
            return
        for folder in (self._run.path, self._run.checkpoints):
            if folder.exists():
                require_writable(folder, "run folder")
        for run in (self._run, *RunFolder.versions(self._run.path.parent)):  # some may have been killed
            remove_leftovers(run.path)
            remove_leftovers(run.checkpoints)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._stop_asked |= trainer.should_stop and trainer.fit_loop._can_stop_early  # as for --trainer.max_time
        is_time = self._stop_asked or trainer.global_step == trainer.max_steps
        if self.every_n_steps:
            is_time |= trainer.global_step % self.every_n_steps == 0
        if self.every_n_minutes and agreement_is_due(trainer, batch_idx):
            minutes = (time.monotonic() - self._saved_at) / 60
            is_time |= bool(agree(trainer, int(minutes >= self.every_n_minutes)))
        if is_time:
            self.save_inside_epoch(trainer)
        if self._stop_asked:  # not between the batches of one step, whose gradients no checkpoint holds
            trainer.should_stop = not is_inside_step(trainer)

    def save_inside_epoch(self, trainer: Trainer) -> bool:
        """Writes ``last.ckpt`` if a run could resume from here, and returns whether it did; a collective operation.

        It could not at the end of an epoch, which is saved anyway, between batches whose gradients are accumulated, or
        if the run's options rule out resuming inside an epoch.
        """
        if is_at_epoch_end(trainer) or is_inside_step(trainer) or not can_go_on_inside_epoch(trainer):
            return False
        self._save(trainer, self._run.last)
        return True

    @override
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A copy, as callbacks may average or prune the weights before and after the validation.
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            state = without_masks(pl_module.state_dict())
            self._measured = {name: tensor.detach().clone() for name, tensor in state.items()}

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save_if_best(trainer, pl_module)
        if is_at_epoch_end(trainer):  # else the epoch was cut short, and is saved already
            self._save(trainer, self._run.last)  # after the export, so that a resumed run never lacks it

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.best:  # a run of few steps, or of fewer epochs than check_val_every_n_epoch
            validate_now(trainer)
            self._save_if_best(trainer, pl_module)

    def is_best(self, trainer: Trainer, metrics: Mapping[str, float]) -> bool:
        """Returns whether the current epoch, with these metrics, replaces the best one so far."""
        if MONITOR not in metrics:
            return False
        is_first = not self.best or "partial" in self.best
        return is_first or (is_at_epoch_end(trainer) and metrics[MONITOR] > self.best[MONITOR])

    def _save_if_best(self, trainer: Trainer, model: LightningModule) -> None:
        # Sorted, as a resumed run logs them in another order than one that was never interrupted.
        metrics = {name: value.item() for name, value in sorted(trainer.callback_metrics.items())}
        if self._measured and self.is_best(trainer, metrics):
            partial = {} if is_at_epoch_end(trainer) else {"partial": True}
            self.best = {"epoch": epoch_index(trainer), **metrics, **partial}
            self._folder, self._saves_measured = str(self._run.path), True
            self._save(trainer, self._run.best)
            self._saves_measured = False
            if isinstance(model, ImageClassifier) and trainer.is_global_zero and not is_fast_dev_run(trainer):
                self._export(trainer, model)
        self._measured = {}

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._saves_measured:
            checkpoint["state_dict"] = self._measured

    def _save(self, trainer: Trainer, path: Path) -> None:
        if not is_fast_dev_run(trainer):
            trainer.save_checkpoint(path)
            self._saved_at, self._saved_step = time.monotonic(), trainer.global_step

    def _export(self, trainer: Trainer, model: ImageClassifier) -> None:
        weights = {
            name.removeprefix(NETWORK_PREFIX): as_stored(tensor.cpu().contiguous(), model.export_dtype)
            for name, tensor in self._measured.items()
            if name.startswith(NETWORK_PREFIX)
        }
        metadata = export_metadata(model, data_of(trainer), self.best)
        content = safetensors.torch.save(weights, metadata)
        for budget in callbacks_of(trainer, SizeBudget):
            budget.check_file(len(content))
        write_bytes(self._run.weights, content)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # Saves the progress before an unexpected error, on a single process: several could not agree on it any more. It
        # cannot while weights are swapped, in a validation of averaged weights, or while a step is half done.
        swapped = trainer.validating and bool(callbacks_of(trainer, WeightAveraging))
        is_foreign = isinstance(exception, Exception) and not isinstance(exception, UserError)
        if not is_foreign or trainer.world_size > 1 or swapped or trainer.global_step <= self._saved_step:
            return
        if step_is_complete(trainer) and can_go_on_inside_epoch(trainer):
            for callback in callbacks_of(trainer, WeightAveraging):  # may not have been called; acts once per step
                callback.on_train_batch_end(trainer, pl_module, None, None, 0)
            redo_validation_on_resume(trainer)
            self._save(trainer, self._run.last)
            print(f"saved {self._run.last} before the error")

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and self.best and trainer.is_global_zero and not is_fast_dev_run(trainer):
            cut_short = ", cut short" if "partial" in self.best else ""
            print(f"best epoch {self.best['epoch'] + 1}{cut_short}: {MONITOR} {self.best[MONITOR]} in {self._folder}")

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "folder": self._folder}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self._folder = state_dict["best"], state_dict["folder"]
