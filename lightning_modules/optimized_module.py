"""``OptimizedModule``: how a network is optimised, as a LightningModule's hooks."""

from typing import Any

from pytorch_lightning import LightningModule
from pytorch_lightning.plugins import MixedPrecision, Precision
from pytorch_lightning.utilities import GradClipAlgorithmType, rank_zero_warn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch.optim import Optimizer
from typing_extensions import override

from lightning_modules.network.optimization import build_optimizer, build_schedule, nearest_cycle_ends


class OptimizedModule(LightningModule):
    """A module with AdamW and a learning-rate schedule, as its hyper-parameters say."""

    @property
    def needs_length(self) -> list[str]:
        """The options, as typed, whose effect depends on how long the run is."""
        return []

    def run_steps(self) -> int:
        """Returns the number of optimiser steps of the run."""
        return int(self.trainer.estimated_stepping_batches)  # a stub

    def _options(self, *names: str) -> dict[str, Any]:
        return {name: self.hparams[name] for name in names}

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        # A fused optimiser unscales float16 gradients itself, which is too late to clip them.
        fused = not (self.trainer.gradient_clip_val and str(self.trainer.precision) == "16-mixed")
        optimizer = build_optimizer(self.parameters(), fused=fused, **self._options("learning_rate", "weight_decay"))
        cycle = self._options("restart_epochs", "restart_multiplier", "min_learning_rate")
        schedule = build_schedule(optimizer, **cycle)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}

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
        for config in self.trainer.lr_scheduler_configs:  # a tuner may have changed the learning rate
            config.scheduler.base_lrs = [self.hparams["learning_rate"]] * len(config.scheduler.base_lrs)
        epochs = self.trainer.max_epochs or -1  # unlimited
        ends = nearest_cycle_ends(epochs, **self._options("restart_epochs", "restart_multiplier"))
        if epochs > 0 and epochs not in ends:
            rank_zero_warn(
                f"--trainer.max_epochs {epochs} ends inside a cosine cycle, where the learning rate is still above its "
                f"minimum: a cycle ends after {' or '.join(map(str, ends))} epochs"
            )
