"""Keeps the best epoch's weights and the last saved state."""

import math
import time
from pathlib import Path
from typing import Any

import safetensors.torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, WeightAveraging
from torch import Tensor

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
from lightning_modules.trained_model import NETWORK_PREFIX, export_metadata
from lightning_modules.weights.pruning import without_masks


class BestWeights(Checkpoint):
    """Writes to the run folder after every epoch, and inside epochs where that is asked for.

    ``checkpoints/last.ckpt`` always; ``checkpoints/best.ckpt`` and ``model.safetensors`` where the validation accuracy
    is higher than ever before, both with the weights that were measured. An epoch that was broken off counts as the
    best, marked as ``partial``, until there is a whole one; a run that ends without a validation gets one. Own code,
    because Lightning 2.6's ModelCheckpoint skips ``last.ckpt`` in epochs that are not the best.

    Args:
        every_n_minutes: Also write ``last.ckpt`` inside an epoch, when so many minutes have passed since it was
            written; 0 for never.
        every_n_steps: Also write ``last.ckpt`` after every so many optimiser steps; 0 for never.

    Raises:
        UserError: A number is negative.
    """

    def __init__(self, every_n_minutes: float = 15.0, every_n_steps: int = 0) -> None:
        for name, value in (("every_n_minutes", every_n_minutes), ("every_n_steps", every_n_steps)):
            if not value >= 0:
                raise UserError(f"expected --best.{name} of 0 or more, got {value}: 0 saves at the end of epochs only")
        self.every_n_minutes = every_n_minutes
        self.every_n_steps = every_n_steps
        self.best: dict[str, Any] = {}
        self._folder = ""  # of the best epoch's run
        self._run = RunFolder(Path())
        self._saved_at = time.monotonic()
        self._saved_step: float = math.inf  # until training begins
        self._stop_asked = False
        self._measured: dict[str, Tensor] = {}  # the module's state in the last validation, until it is saved
        self._saves_measured = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Looks at the run folder, and that a validation measures the weights that are saved after it.

        Raises:
            UserError: The folder cannot be written to, or validation is left out or set to happen inside an epoch.
        """
        if stage != "fit":
            return
        # Another type is another meaning: 1 is "after every batch".
        if not (isinstance(trainer.val_check_interval, float) and trainer.val_check_interval == 1.0):
            raise UserError(
                "expected validation at the end of epochs, where the best weights are saved, got "
                f"--trainer.val_check_interval {trainer.val_check_interval}: leave it out"
            )
        if trainer.limit_val_batches == 0 and not is_fast_dev_run(trainer):
            raise UserError(
                "expected validation images, by which the best weights are chosen, got --trainer.limit_val_batches "
                f"{trainer.limit_val_batches}: leave it out, or give 1 for a single batch"
            )
        self._run = RunFolder(Path(trainer.log_dir or "."))  # asked once, by all: that is a collective operation
        if not trainer.is_global_zero:
            return
        for folder in (self._run.path, self._run.checkpoints):
            if folder.exists():
                require_writable(folder, "run folder")
        for run in (self._run, *RunFolder.versions(self._run.path.parent)):  # which may have been killed
            remove_leftovers(run.path)
            remove_leftovers(run.checkpoints)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves inside the epoch where it is time."""
        self._stop_asked |= trainer.should_stop and trainer.fit_loop._can_stop_early  # as for --trainer.max_time
        is_time = self._stop_asked or trainer.global_step == trainer.max_steps
        if self.every_n_steps:
            is_time |= trainer.global_step % self.every_n_steps == 0
        if self.every_n_minutes and agreement_is_due(trainer, batch_idx):
            minutes = (time.monotonic() - self._saved_at) / 60
            is_time |= bool(agree(trainer, int(minutes >= self.every_n_minutes)))
        if is_time:
            self.save_inside_epoch(trainer)
        if self._stop_asked:  # between the batches of one step, what was done since the last save would be lost
            trainer.should_stop = not is_inside_step(trainer)

    def save_inside_epoch(self, trainer: Trainer) -> bool:
        """Writes ``last.ckpt`` if a resumed run could go on from here; a collective operation.

        Returns:
            False at the end of an epoch, which saves by itself, between steps whose gradients add up, and in a run that
            cannot go on inside an epoch.
        """
        if is_at_epoch_end(trainer) or is_inside_step(trainer) or not can_go_on_inside_epoch(trainer):
            return False
        self._save(trainer, self._run.last)
        return True

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copies the weights that are about to be measured: others are averaged in or pruned before and after it."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            state = without_masks(pl_module.state_dict())
            self._measured = {name: tensor.detach().clone() for name, tensor in state.items()}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves; called on every process, because saving is a collective operation."""
        is_whole = is_at_epoch_end(trainer)
        self._save_if_best(trainer, pl_module, is_whole)
        if is_whole:  # else the epoch was broken off, and is saved
            self._save(trainer, self._run.last)  # after the export, so that a resumed run never lacks it

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures a run that has never been: of few steps, or fewer epochs than check_val_every_n_epoch."""
        if not self.best:
            validate_now(trainer)
            self._save_if_best(trainer, pl_module, is_at_epoch_end(trainer))

    def _save_if_best(self, trainer: Trainer, model: LightningModule, is_whole: bool) -> None:
        if not self._measured:
            return
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        before = {} if self.best.get("partial") else self.best
        if not before or (is_whole and metrics[MONITOR] > before[MONITOR]):
            partial = {} if is_whole else {"partial": True}
            self.best = {"epoch": epoch_index(trainer), **metrics, **partial}
            self._folder, self._saves_measured = str(self._run.path), True
            self._save(trainer, self._run.best)
            self._saves_measured = False
            if trainer.is_global_zero and not is_fast_dev_run(trainer):
                self._export(trainer, model)
        self._measured = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Puts what was measured into ``best.ckpt``."""
        if self._saves_measured:
            checkpoint["state_dict"] = self._measured

    def _save(self, trainer: Trainer, path: Path) -> None:
        if not is_fast_dev_run(trainer):
            trainer.save_checkpoint(path)
            self._saved_at, self._saved_step = time.monotonic(), trainer.global_step

    def _export(self, trainer: Trainer, model: LightningModule) -> None:
        if not isinstance(model, ImageClassifier):
            return
        weights = {
            name.removeprefix(NETWORK_PREFIX): tensor.cpu().contiguous()
            for name, tensor in self._measured.items()
            if name.startswith(NETWORK_PREFIX)
        }
        metadata = export_metadata(model, data_of(trainer), self.best)
        content = safetensors.torch.save(weights, metadata)
        for budget in callbacks_of(trainer, SizeBudget):
            budget.check_file(len(content))
        write_bytes(self._run.weights, content)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Saves what was done before a fault that is not this project's, on a single process.

        Several cannot agree on it any more. Where weights are swapped, in a validation with averaged weights, and where
        a step is half done, what was saved before stays.
        """
        swapped = trainer.validating and bool(callbacks_of(trainer, WeightAveraging))
        is_foreign = isinstance(exception, Exception) and not isinstance(exception, UserError)
        if not is_foreign or trainer.world_size > 1 or swapped or trainer.global_step <= self._saved_step:
            return
        if step_is_complete(trainer) and can_go_on_inside_epoch(trainer):
            for callback in callbacks_of(trainer, WeightAveraging):  # may stand behind the one that failed; once a step
                callback.on_train_batch_end(trainer, pl_module, None, None, 0)
            redo_validation_on_resume(trainer)
            self._save(trainer, self._run.last)
            print(f"saved {self._run.last} before ending")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Says which epoch was best and where it is, once the progress bar is gone."""
        if stage == "fit" and self.best and trainer.is_global_zero and not is_fast_dev_run(trainer):
            broken_off = ", broken off" if self.best.get("partial") else ""
            print(f"best epoch {self.best['epoch'] + 1}{broken_off}: {MONITOR} {self.best[MONITOR]} in {self._folder}")

    def state_dict(self) -> dict[str, Any]:
        """The best epoch so far, in plain types."""
        return {"best": self.best, "folder": self._folder}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up where the checkpoint was saved."""
        self.best, self._folder = state_dict["best"], state_dict["folder"]
