"""Options of the Trainer and its callbacks that a resumed run must keep, as they influence the result of training."""

import inspect
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

from callbacks.guards.size_budget import SizeBudget
from callbacks.trainer_parts import callbacks_of

# What the weights that choose the best epoch are rounded to; a run that does not name it had fp32.
STORED = "size_budget.precision"
# Options of the Trainer for which 1 means one batch and 1.0 all of them.
BATCHES_OR_SHARE = ("limit_train_batches", "limit_val_batches", "overfit_batches", "val_check_interval")
# Lightning's callbacks that change weights, gradients or rates; users' own are only in the manifest's resumed event.
TRAINING_CALLBACKS = (
    BaseFinetuning, GradientAccumulationScheduler, ModelPruning, StochasticWeightAveraging, WeightAveraging,
)  # fmt: skip
# Those that act at the start of an epoch, so that a run cannot resume inside one.
EPOCH_START_CALLBACKS = (StochasticWeightAveraging,)
# Those whose masks or frozen layers are not restored from a checkpoint.
NOT_RESUMABLE = (BaseFinetuning, ModelPruning)


def option_defaults(part: type) -> dict[str, Any]:
    """Returns the defaults of a class's options, which a run had for one that came with a later version."""
    options = inspect.signature(part).parameters.values()
    return {option.name: option.default for option in options if option.default is not option.empty}


def trainer_options(trainer: Trainer) -> dict[str, Any]:
    """Returns the Trainer's options that influence the result of training, by name, in plain types."""
    device = trainer.strategy.root_device.type
    return {
        "processes": trainer.world_size,
        "precision": str(trainer.precision),
        STORED: next((budget.precision for budget in callbacks_of(trainer, SizeBudget)), "fp32"),
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "gradient_clip_val": trainer.gradient_clip_val,
        "gradient_clip_algorithm": getattr(trainer.gradient_clip_algorithm, "value", "norm"),
        "check_val_every_n_epoch": trainer.check_val_every_n_epoch,
        "reload_dataloaders_every_n_epochs": trainer.reload_dataloaders_every_n_epochs,  # type: ignore[attr-defined]
        **{name: repr(getattr(trainer, name, None)) for name in BATCHES_OR_SHARE},
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "sync_batchnorm": getattr(trainer.strategy, "_layer_sync", None) is not None,
        "device": device,
        **({"OMP_NUM_THREADS": torch.get_num_threads()} if device == "cpu" else {}),  # threads change the order of sums
    }
