"""A check that the loss is finite, before weights that are not reach a checkpoint."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from callbacks.processes import agree, agreement_is_due, fail, gather
from callbacks.trainer_parts import data_of
from datamodules.files.errors import listed
from datamodules.images.location import shown
from datamodules.sampler import BLANK

SHOWN = 16
ADVICE = "the checkpoints in the run folder are older; lower --model.learning_rate, or inspect the images"


class FiniteLoss(Callback):
    """Ends a run whose loss is NaN or infinite. On a GPU several steps are checked together, to wait for it once."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, Tensor, Tensor]] = []  # batch of the epoch, loss, samples

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._steps.append((batch_idx, outputs["loss"].detach(), batch.samples))
        if agreement_is_due(trainer, batch_idx):
            self._look(trainer)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._look(trainer)
        finite = {name: tensor.isfinite().all() for name, tensor in checkpoint["state_dict"].items()}
        answers = torch.stack(list(finite.values())).tolist()  # together: a GPU is waited for once
        spoilt = [name for name, is_finite in zip(finite, answers, strict=True) if not is_finite]
        if agree(trainer, int(bool(spoilt))):
            fail(trainer, f"the weights {listed(spoilt)} are not finite and were not saved: {ADVICE}")

    def _look(self, trainer: Trainer) -> None:
        steps, self._steps = self._steps, []
        bad = ~torch.stack([loss for _, loss, _ in steps]).isfinite() if steps else torch.tensor([False])
        if not agree(trainer, int(bad.any())):
            return
        paths = data_of(trainer).dataset("train").paths
        found = [
            (batch_idx, loss.item(), [shown(paths[sample]) for sample in samples.tolist() if sample != BLANK])
            for (batch_idx, loss, samples), is_bad in zip(steps, bad.tolist(), strict=True)
            if is_bad
        ]
        batch_idx, loss, files = min(step for part in gather(trainer, found[:1]) for step in part)
        fail(
            trainer,
            f"the loss is {loss} in epoch {trainer.current_epoch + 1} at batch {batch_idx + 1}, of "
            f"{listed(files, SHOWN)}: {ADVICE}",
        )
