"""``OptimizedModule``: how a network is optimised, as a LightningModule's hooks."""

import math
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from pytorch_lightning.plugins import MixedPrecision, Precision
from pytorch_lightning.utilities import GradClipAlgorithmType, rank_zero_only, rank_zero_warn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm  # SyncBatchNorm too
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from typing_extensions import override

from datamodules.files.errors import UserError
from datamodules.image_folder import ImageFolderDataModule
from lightning_modules.model_options import require_usable_length, require_usable_rates
from lightning_modules.network.optimization import build_optimizer, describe_groups, parameter_groups
from lightning_modules.network.resnet_cbam import ResNetCBAM
from lightning_modules.network.schedule import WarmRestarts, WarmupCosine, nearest_cycle_ends


class OptimizedModule(LightningModule):
    """A module with AdamW and a learning-rate schedule, as its hyper-parameters say."""

    network: ResNetCBAM
    _max_epochs = _max_steps = -1  # the run's limits, as given

    def _options(self, *names: str) -> dict[str, Any]:
        return {name: self.hparams[name] for name in names}

    @property
    def needs_length(self) -> list[str]:
        """The options, as they are typed, whose effect depends on the length of the run."""
        return ["--model.schedule cosine"] if self.hparams["schedule"] == "cosine" else []

    @property
    def _data(self) -> ImageFolderDataModule:
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, ImageFolderDataModule):
            raise UserError(
                "--model.schedule cosine, --model.ema_decay auto, --model.class_weights, and "
                "--model.freeze_trunk_epochs with --trainer.max_steps need the training images of an "
                f"ImageFolderDataModule, got {type(data).__name__}: pass one to the Trainer, or leave them out"
            )
        return data

    def count_training_images(self, num_classes: int) -> Tensor:
        """Returns the number of training images of each class ``(classes,)``, over all processes."""
        return torch.as_tensor(self._data.dataset("train").targets).bincount(minlength=num_classes)

    @override
    def setup(self, stage: str) -> None:
        if stage == "fit":  # before a callback lifts a limit for a time
            others = getattr(getattr(self.trainer, "datamodule", None), "needs_length", [])
            require_usable_length(self.trainer, self.hparams, [*self.needs_length, *others])
            require_usable_rates(self.trainer, self.hparams)
            self._max_epochs, self._max_steps = int(self.trainer.max_epochs or 0), self.trainer.max_steps

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        rates = self._options("learning_rate", "weight_decay")
        shares = self._options("trunk_learning_rate_ratio", "layer_decay", "weight_decay_on")
        freezes = self.hparams["freeze_trunk_epochs"] > 0
        groups = parameter_groups(self.network, freezes_trunk=freezes, **rates, **shares)
        optimizer = build_optimizer(groups, fused=self._can_fuse, **rates)
        interval = "step" if self.hparams["schedule"] == "cosine" else "epoch"
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self._build_schedule(optimizer), "interval": interval},
        }

    @property
    def _can_fuse(self) -> bool:
        # A fused optimiser unscales float16 gradients itself, which is too late to clip them.
        return not (self.trainer.gradient_clip_val and str(self.trainer.precision) == "16-mixed")

    def _build_schedule(self, optimizer: Optimizer) -> LRScheduler:
        is_cosine = self.hparams["schedule"] == "cosine"
        frozen = self.hparams["freeze_trunk_epochs"]
        if frozen and (is_cosine or self._max_steps >= 0):
            frozen_steps = self._steps_of("freeze_trunk_epochs")  # raises if the run is not longer
            frozen = frozen_steps if is_cosine else frozen  # warm restarts count epochs
        for group in optimizer.param_groups:
            if "frozen" in group:
                group["frozen"] = frozen
        minimum = self.hparams["min_learning_rate"]
        if is_cosine:
            steps, warmup_steps = self.run_steps(), self._steps_of("warmup_epochs")
            return WarmupCosine(optimizer, steps=steps, warmup_steps=warmup_steps, min_learning_rate=minimum)
        return WarmRestarts(optimizer, self.hparams["restart_epochs"], self.hparams["restart_multiplier"], minimum)

    def _steps_of(self, option: str) -> int:
        """Returns the optimiser steps in the epochs that an option counts.

        Raises:
            UserError: The run is not longer.
        """
        steps, run = self.steps_in(self.hparams[option]), self.run_steps()
        if 0 < steps >= run and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise UserError(
                f"--model.{option} {self.hparams[option]:g} is {steps} steps, but the whole run is {run}: lower it, "
                "or train longer"
            )
        return steps

    def run_steps(self) -> int:
        """Returns the number of optimiser steps of a run whose epochs or steps are limited."""
        limits = [self._max_steps] if self._max_steps >= 0 else []
        limits += [self.steps_in(self._max_epochs)] if self._max_epochs >= 0 else []
        return min(limits)

    def steps_in(self, epochs: float) -> int:
        """Returns the number of optimiser steps in the run's first epochs, rounded to whole ones.

        From the data set: Lightning's ``estimated_stepping_batches`` starts to load before a resumed run knows where it
        goes on.
        """
        trainer: Any = self.trainer
        loader: Any = self._data.train_dataloader()
        if trainer.overfit_batches:  # Lightning replaces the sampler by one that gives every process all images
            loader = DataLoader(loader.dataset, batch_size=loader.batch_size, drop_last=loader.drop_last)
        limit = trainer.limit_train_batches
        batches = min(len(loader), limit) if isinstance(limit, int) else int(len(loader) * limit)
        factors = [x for x in trainer.callbacks if isinstance(x, GradientAccumulationScheduler)]

        def steps(epoch: int) -> int:
            accumulated = factors[0].get_accumulate_grad_batches(epoch) if factors else trainer.accumulate_grad_batches
            return math.ceil(batches / accumulated)

        whole = int(epochs)
        return sum(map(steps, range(whole))) + round((epochs - whole) * steps(whole))

    @override
    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        plugin = self.trainer.precision_plugin
        if gradient_clip_val and isinstance(plugin, MixedPrecision) and plugin.scaler is None:
            # Lightning 2.6 also refuses to clip for a fused optimiser in bfloat16, where no gradient is scaled.
            algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
            Precision.clip_gradients(plugin, optimizer, gradient_clip_val, algorithm)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    @override
    def on_fit_start(self) -> None:
        for config in self.trainer.lr_scheduler_configs:
            # A tuner may have changed the learning rate, or the batch size and so the number of steps.
            optimizer = config.scheduler.optimizer
            for group in optimizer.param_groups:
                group["initial_lr"] = self.hparams["learning_rate"] * group.get("ratio", 1.0)
            config.scheduler = self._build_schedule(optimizer)
        for line in self._describe():
            rank_zero_only(print)(line)
        if self.hparams["schedule"] == "warm_restarts":
            self._warn_of_a_high_end()

    def _describe(self) -> list[str]:
        """Returns what to print of optimiser and schedule, where options make them other than the reference's."""
        groups = self.trainer.optimizers[0].param_groups
        lines = []
        if len(groups) > 1 or self.trainer.gradient_clip_val:
            reason = (
                "fused" if self._can_fuse else "not fused, as float16 gradients are unscaled before they are clipped"
            )
            lines.append(f"optimiser: AdamW, {reason}")
        lines += describe_groups(groups) if len(groups) > 1 else []
        if self.hparams["schedule"] == "cosine":
            steps = self.run_steps()
            warmup_steps = min(self._steps_of("warmup_epochs"), steps)  # fast_dev_run may end inside the warm-up
            lines.append(
                f"schedule: one cosine over {steps:,} steps, {warmup_steps:,} of them warm-up; "
                "--model.restart_epochs and --model.restart_multiplier have no part in it"
            )
        return lines

    def _warn_of_a_high_end(self) -> None:
        epochs = self.trainer.max_epochs or -1  # unlimited
        ends = nearest_cycle_ends(epochs, **self._options("restart_epochs", "restart_multiplier"))
        if epochs > 0 and epochs not in ends:
            rank_zero_warn(
                f"--trainer.max_epochs {epochs} ends inside a cosine cycle, where the learning rate is still above its "
                f"minimum: a cycle ends after {' or '.join(map(str, ends))} epochs"
            )

    @override
    def on_train_start(self) -> None:
        self._set_trunk_norms()  # a run that resumes inside an epoch has no start of it

    @override
    def on_train_epoch_start(self) -> None:
        self._set_trunk_norms()

    @override
    def on_train_end(self) -> None:
        self._set_trunk_norms(training=True)

    def _set_trunk_norms(self, training: bool | None = None) -> None:
        """Puts batch norm, of which only the trunk has any, into evaluation mode while the trunk is frozen."""
        frozen = self.hparams["freeze_trunk_epochs"]
        for module in self.network.modules() if frozen else ():
            if isinstance(module, _BatchNorm):
                module.train(self.trainer.current_epoch >= frozen if training is None else training)
