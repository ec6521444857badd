"""Keeps the best epoch's weights and the last saved state."""

import time
from pathlib import Path
from typing import Any

import safetensors.torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from callbacks.processes import agree, agreement_is_due
from callbacks.size_budget import SizeBudget
from datamodules.atomic_file import remove_leftovers, require_writable, write_bytes
from datamodules.errors import UserError
from lightning_modules.checkpoint import export_metadata
from lightning_modules.classifier import MONITOR, ImageClassifier

CHECKPOINTS, LAST, BEST, WEIGHTS = "checkpoints", "last.ckpt", "best.ckpt", "model.safetensors"


class BestWeights(Checkpoint):
    """Writes to the run folder after every epoch, and inside epochs where that is asked for.

    ``checkpoints/last.ckpt`` always; ``checkpoints/best.ckpt`` and ``model.safetensors`` where the validation accuracy
    is higher than ever before, so never without validation. Own code, because Lightning 2.6's ModelCheckpoint skips
    ``last.ckpt`` in epochs that are not the best.

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
        self._run_folder = Path()
        self._saved_at = time.monotonic()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Looks at the run folder, and that a validation measures the weights that are saved after it.

        Raises:
            UserError: The folder cannot be written to, or validation is set to happen inside an epoch.
        """
        if stage != "fit":
            return
        if trainer.val_check_interval != 1.0:
            raise UserError(
                "expected validation at the end of epochs, where the best weights are saved, got "
                f"--trainer.val_check_interval {trainer.val_check_interval}: leave it out"
            )
        self._run_folder = Path(trainer.log_dir or ".")  # asked once, by all: that is a collective operation
        if not trainer.is_global_zero:
            return
        for folder in (self._run_folder, self._run_folder / CHECKPOINTS):
            if folder.exists():
                require_writable(folder, "run folder")
        for folder in (self._run_folder, *self._run_folder.parent.glob("version_*")):  # of runs that were killed
            remove_leftovers(folder)
            remove_leftovers(folder / CHECKPOINTS)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves inside the epoch where it is time."""
        is_time = trainer.should_stop or trainer.global_step == trainer.max_steps  # as --trainer.max_time may want it
        if self.every_n_steps:
            is_time |= trainer.global_step % self.every_n_steps == 0
        if self.every_n_minutes and agreement_is_due(trainer, batch_idx):
            minutes = (time.monotonic() - self._saved_at) / 60
            is_time |= bool(agree(trainer, int(minutes >= self.every_n_minutes)))
        if is_time:
            self.save_inside_epoch(trainer)

    def save_inside_epoch(self, trainer: Trainer) -> bool:
        """Writes ``last.ckpt`` if a resumed run could go on from here; a collective operation.

        Returns:
            False at the end of an epoch, which saves by itself, between steps whose gradients add up, and where
            ``--trainer.overfit_batches`` brings a sampler that cannot go on inside an epoch.
        """
        loop = trainer.fit_loop
        if loop.epoch_loop.batch_progress.is_last_batch or loop._should_accumulate() or trainer.overfit_batches:  # type: ignore[attr-defined]
            return False
        self._save(trainer, LAST)
        return True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves; called on every process, because saving is a collective operation."""
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        is_best = MONITOR in metrics and metrics[MONITOR] > self.best.get(MONITOR, -1.0)
        if is_best:
            self.best, self._folder = {"epoch": trainer.current_epoch, **metrics}, str(self._run_folder)
            self._save(trainer, BEST)
            if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
                self._export(trainer, pl_module)
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:  # else the epoch was broken off, and is saved
            self._save(trainer, LAST)  # after the export, so that a resumed run never lacks it

    def _save(self, trainer: Trainer, name: str) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self._run_folder / CHECKPOINTS / name)
            self._saved_at = time.monotonic()

    def _export(self, trainer: Trainer, model: LightningModule) -> None:
        if not isinstance(model, ImageClassifier):
            return
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.network.state_dict().items()}
        metadata = export_metadata(model, trainer.datamodule, self.best)  # type: ignore[attr-defined]
        content = safetensors.torch.save(weights, metadata)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, SizeBudget):
                callback.check_file(len(content))
        write_bytes(self._run_folder / WEIGHTS, content)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Says which epoch was best and where it is, once the progress bar is gone."""
        if stage == "fit" and self.best and trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            print(f"best epoch {self.best['epoch'] + 1}: {MONITOR} {self.best[MONITOR]} in {self._folder}")

    def state_dict(self) -> dict[str, Any]:
        """The best epoch so far, in plain types."""
        return {"best": self.best, "folder": self._folder}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up where the checkpoint was saved."""
        self.best, self._folder = state_dict["best"], state_dict["folder"]
