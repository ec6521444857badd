"""Keeps the best epoch's weights and the last epoch's state."""

from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import TensorBoardLogger
from safetensors.torch import save_file

from callbacks.atomic_file import atomic_file
from callbacks.bad_images import BadImages
from callbacks.run_manifest import write_manifest
from callbacks.size_budget import SizeBudget
from datamodules.errors import UserError
from lightning_modules.checkpoint import export_metadata
from lightning_modules.classifier import MONITOR, ImageClassifier


class BestWeights(Checkpoint):
    """Writes to the run folder after every epoch.

    ``checkpoints/last.ckpt`` and ``manifest.json`` always; ``checkpoints/best.ckpt`` and ``model.safetensors`` where
    the validation accuracy is higher than ever before, so never without validation. Own code, because Lightning 2.6's
    ModelCheckpoint skips ``last.ckpt`` in epochs that are not the best.
    """

    def __init__(self) -> None:
        self.best: dict[str, Any] = {}
        self._folder = ""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Makes sure that a validation measures the weights that are saved after it.

        Raises:
            UserError: Validation is set to happen inside an epoch.
        """
        if stage == "fit" and trainer.val_check_interval != 1.0:
            raise UserError(
                "expected validation at the end of epochs, where the best weights are saved, got "
                f"--trainer.val_check_interval {trainer.val_check_interval}: leave it out"
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves; called on every process, because saving is a collective operation."""
        if trainer.fast_dev_run or not isinstance(pl_module, ImageClassifier):  # type: ignore[attr-defined]
            return
        folder = Path(trainer.log_dir or ".")
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        is_best = MONITOR in metrics and metrics[MONITOR] > self.best.get(MONITOR, -1.0)
        if is_best:
            self.best, self._folder = {"epoch": trainer.current_epoch, **metrics}, str(folder)
            trainer.save_checkpoint(folder / "checkpoints" / "best.ckpt")
        trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")
        if not trainer.is_global_zero:
            return
        if is_best:
            self._export(folder, trainer, pl_module)
        skipped = next((c.unreadable for c in trainer.callbacks if isinstance(c, BadImages)), {})  # type: ignore[attr-defined]
        write_manifest(folder / "manifest.json", trainer, pl_module, self.best, skipped)

    def _export(self, folder: Path, trainer: Trainer, model: ImageClassifier) -> None:
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.network.state_dict().items()}
        metadata = export_metadata(model, trainer.datamodule, self.best)  # type: ignore[attr-defined]
        with atomic_file(folder / "model.safetensors") as temporary:
            save_file(weights, temporary, metadata)
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, SizeBudget):
                    callback.check_file(temporary)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_metrics({f"best/{MONITOR}": self.best[MONITOR]}, step=trainer.current_epoch)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Says which epoch was best and where it is, once the progress bar is gone."""
        if stage == "fit" and self.best and trainer.is_global_zero:
            print(f"best epoch {self.best['epoch'] + 1}: {MONITOR} {self.best[MONITOR]} in {self._folder}")

    def state_dict(self) -> dict[str, Any]:
        """The best epoch so far, in plain types."""
        return {"best": self.best, "folder": self._folder}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up where the checkpoint was saved."""
        self.best, self._folder = state_dict["best"], state_dict["folder"]
