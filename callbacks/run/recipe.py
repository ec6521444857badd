"""What of the Trainer and of its callbacks decides where a run ends."""

from typing import Any

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import (
    BaseFinetuning,
    GradientAccumulationScheduler,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)

# Of these options of the Trainer, 1 is a batch and 1.0 is all of them.
BATCHES_OR_SHARE = ("limit_train_batches", "limit_val_batches", "overfit_batches", "val_check_interval")
# Lightning's callbacks that change weights, gradients or rates; a user's own are in the manifest's resumed event only.
TRAINING_CALLBACKS = (
    BaseFinetuning, GradientAccumulationScheduler, ModelPruning, StochasticWeightAveraging, WeightAveraging,
)  # fmt: skip
# Of these, the one that acts at the start of an epoch, so that a run cannot go on inside one.
EPOCH_START_CALLBACKS = (StochasticWeightAveraging,)
# Of these, those whose masks or frozen layers do not come back from a checkpoint.
NOT_RESUMABLE = (BaseFinetuning, ModelPruning)


def trainer_options(trainer: Trainer) -> dict[str, Any]:
    """The Trainer's options that decide where a run ends, by name, in plain types."""
    device = trainer.strategy.root_device.type
    return {
        "processes": trainer.world_size,
        "precision": str(trainer.precision),
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "gradient_clip_val": trainer.gradient_clip_val,
        "gradient_clip_algorithm": getattr(trainer.gradient_clip_algorithm, "value", "norm"),
        "check_val_every_n_epoch": trainer.check_val_every_n_epoch,
        "reload_dataloaders_every_n_epochs": trainer.reload_dataloaders_every_n_epochs,  # type: ignore[attr-defined]
        **{name: repr(getattr(trainer, name)) for name in BATCHES_OR_SHARE},
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "sync_batchnorm": getattr(trainer.strategy, "_layer_sync", None) is not None,
        "device": device,
        **({"OMP_NUM_THREADS": torch.get_num_threads()} if device == "cpu" else {}),  # they split sums
    }
