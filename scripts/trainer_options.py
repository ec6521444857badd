"""Checks of Trainer options that Lightning silently accepts but that would fail or have no effect."""

import math

from jsonargparse import Namespace
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import BackboneFinetuning, GradientAccumulationScheduler, Timer
from pytorch_lightning.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from callbacks.trainer_parts import callbacks_of
from datamodules.files.errors import UserError

AT_LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "num_nodes": 1,
    "num_sanity_val_steps": -1,
    "log_every_n_steps": 0,
    "reload_dataloaders_every_n_epochs": 0,
    "gradient_clip_val": 0,
}
# With 0 of these a command would end at once, as if it had succeeded.
LENGTHS = {
    "fit": ("max_epochs", "max_steps", "limit_train_batches"),
    "validate": ("limit_val_batches",),
    "test": ("limit_test_batches",),
    "predict": ("limit_predict_batches",),
}


def require_usable(options: Namespace, subcommand: str) -> None:
    """Checks the options before a Trainer is made of them.

    Args:
        options: The options below ``--trainer``.
        subcommand: fit, validate, test or predict.

    Raises:
        UserError: A number is out of its range, nothing would be done, or the option has no effect here.
    """
    for name, least in AT_LEAST.items():
        value = options.get(name)
        if value is not None and not (math.isfinite(value) and value >= least):
            raise UserError(f"--trainer.{name} must be a finite number of at least {least}, got {value}: correct it")
    for name in LENGTHS[subcommand]:
        if options.get(name) == 0 and not options.fast_dev_run:
            raise UserError(f"--trainer.{name} 0 leaves {subcommand} nothing to do: give at least 1, or leave it out")
    if options.barebones:
        raise UserError(
            "--trainer.barebones true switches off the checks, logs and checkpoints of a run: leave it out, or measure "
            "speed with cbam100 benchmark step"
        )
    if subcommand != "fit" and options.logger:
        raise UserError(f"--trainer.logger has no effect in {subcommand}, which prints its results: leave it out")
    if options.default_root_dir is not None:
        raise UserError(
            f"--trainer.default_root_dir {options.default_root_dir} has no effect, as runs are written to runs/ in the "
            "working directory: change to the folder that should hold it"
        )


def require_usable_trainer(trainer: Trainer) -> None:
    """Looks at the strategy and the callbacks that Lightning has made of the options.

    Raises:
        UserError: They cannot be combined, a callback expects another network, or each process would have only a part
            of the weights, of which no export can be made.
    """
    if callbacks_of(trainer, BackboneFinetuning):
        raise UserError(
            "BackboneFinetuning needs a submodule named backbone, which ResNetCBAM does not have: leave it out, or "
            "freeze layers with your own BaseFinetuning"
        )
    for timer in callbacks_of(trainer, Timer):
        if (left := timer.time_remaining()) is not None and left <= 0:
            raise UserError(f"--trainer.max_time must be longer than 0, got {left:g} s: 00:12:00:00 is 12 hours")
    strategy = trainer.strategy
    accumulates = trainer.accumulate_grad_batches > 1 or bool(callbacks_of(trainer, GradientAccumulationScheduler))
    if isinstance(strategy, DDPStrategy) and strategy._ddp_kwargs.get("static_graph") and accumulates:
        raise UserError(
            "torch cannot combine DDP's static_graph with gradient accumulation: leave static_graph or "
            "--trainer.accumulate_grad_batches out"
        )
    if isinstance(strategy, FSDPStrategy | DeepSpeedStrategy | ModelParallelStrategy):
        raise UserError(
            f"--trainer.strategy {type(strategy).__name__} splits the weights between processes, which networks "
            "of at most 100 MB do not need and their export does not support: pass --trainer.strategy ddp"
        )
