"""Ends a run whose loss is no number any more, before that reaches a checkpoint."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.processes import agree, agreement_is_due, fail, gather
from callbacks.trainer_parts import data_of
from datamodules.files.errors import listed
from datamodules.sampler import BLANK

SHOWN = 16
ADVICE = "the run folder's checkpoints are from before; lower --model.learning_rate or look at the files"


class FiniteLoss(Callback):
    """Looks at the loss of every step, on a GPU at several together, so that it need not wait for each."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, Tensor, Tensor]] = []  # batch of the epoch, loss, samples

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Notes the loss, and looks where processes agree.

        Raises:
            UserError: It is NaN or infinite.
        """
        self._steps.append((batch_idx, outputs["loss"].detach(), batch.samples))
        if agreement_is_due(trainer, batch_idx):
            self._look(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the rest of the epoch.

        Raises:
            UserError: A loss is NaN or infinite.
        """
        self._look(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keeps weights that are no numbers out of the file.

        Raises:
            UserError: A loss or a weight is NaN or infinite.
        """
        self._look(trainer)
        finite = {name: tensor.isfinite().all() for name, tensor in checkpoint["state_dict"].items()}
        answers = torch.stack(list(finite.values())).tolist()  # together: a GPU is waited for once
        spoilt = [name for name, is_finite in zip(finite, answers, strict=True) if not is_finite]
        if agree(trainer, int(bool(spoilt))):
            fail(trainer, f"expected finite weights to save, {listed(spoilt)} are not: {ADVICE}")

    def _look(self, trainer: Trainer) -> None:
        steps, self._steps = self._steps, []
        bad = ~torch.stack([loss for _, loss, _ in steps]).isfinite() if steps else torch.tensor([False])
        if not agree(trainer, int(bad.any())):
            return
        paths = data_of(trainer).dataset("train").paths
        found = [
            (batch_idx, loss.item(), [paths[sample] for sample in samples.tolist() if sample != BLANK])
            for (batch_idx, loss, samples), is_bad in zip(steps, bad.tolist(), strict=True)
            if is_bad
        ]
        batch_idx, loss, files = min(step for part in gather(trainer, found[:1]) for step in part)
        fail(
            trainer,
            f"expected a finite loss, got {loss} in epoch {trainer.current_epoch + 1} at batch {batch_idx + 1}, of "
            f"{listed(files, SHOWN)}: {ADVICE}",
        )
