"""Makes a resumed run end where the uninterrupted one would have ended, to the bit."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import (
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
)
from torchmetrics import Metric

from callbacks.processes import fail, gather
from callbacks.run.loop_state import is_at_epoch_end
from callbacks.run.recipe import NOT_RESUMABLE, trainer_options
from callbacks.trainer_parts import callbacks_of, data_of
from datamodules import ImageFolderDataModule
from datamodules.files.errors import UserError, listed
from lightning_modules.classifier import ImageClassifier
from lightning_modules.trained_model import differences

KEY = "exact_resume"
TUNERS = (BatchSizeFinder, LearningRateFinder)


class ExactResume(Callback):
    """Adds to a checkpoint what Lightning leaves out: random streams and half-filled metrics of every process.

    The order of images and their augmentation need no state: they are functions of seed, epoch and image, and the data
    module's sampler skips what was seen. What would make them others is compared, and refused where it differs.

    Args:
        checkpoint: What the run goes on from, as the command said; None for a new run. Not Lightning's
            ``trainer.ckpt_path``, which is None in ``setup``, and set by its tuners in a new run.
        training_callbacks: The ``TRAINING_CALLBACKS`` of the run with their arguments, in plain types.
    """

    def __init__(self, checkpoint: str | None = None, training_callbacks: Sequence[dict[str, Any]] = ()) -> None:
        self.checkpoint = checkpoint
        self.training_callbacks = list(training_callbacks)
        self._options: dict[str, Any] = {}
        self._state: dict[str, Any] = {}
        self._tuned = False
        self._max_steps = -1
        self._is_at_validation = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Notes the Trainer's options before other callbacks change them, and refuses what no checkpoint holds.

        Raises:
            UserError: A run that prunes or freezes is to be resumed, or one is to be tuned that has begun.
        """
        if stage != "fit":
            return
        self._options = {**trainer_options(trainer), "callbacks": self.training_callbacks}
        for callback in callbacks_of(trainer, Callback) if self.checkpoint else ():
            name = type(callback).__name__
            if isinstance(callback, NOT_RESUMABLE):
                raise UserError(
                    f"expected a run without {name}, which cannot be resumed exactly, got {self.checkpoint}: start "
                    "anew from its weights with --model.weights model.safetensors"
                )
            if isinstance(callback, TUNERS):
                raise UserError(
                    f"expected {name} in a new run only, got it with {self.checkpoint}: leave it out, or start anew "
                    "from its weights with --model.weights model.safetensors"
                )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Collects every process's state."""
        cuda = pl_module.device.type == "cuda"
        _, batches = data_of(trainer).resume_point()
        state = {
            "cpu_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(pl_module.device) if cuda else None,
            # At the end of an epoch they are full, and Lightning is about to empty them.
            "metrics": {name: _metric_state(metric) for name, metric in _train_metrics(pl_module) if batches},
        }
        self._tuned |= any(isinstance(callback, TUNERS) for callback in callbacks_of(trainer, Callback))
        checkpoint[KEY] = {"recipe": self._recipe(trainer), "tuned": self._tuned, "processes": gather(trainer, state)}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Compares, and keeps this process's state.

        Raises:
            UserError: The model, the data, the number of processes or another part of the recipe differ.
        """
        if trainer.state.fn != "fit" or not self.checkpoint:
            return
        if fault := _fault(checkpoint, {**_kept(pl_module), **self._recipe(trainer)}):
            fail(trainer, fault)
        self._state = checkpoint[KEY]["processes"][trainer.global_rank]
        self._tuned = checkpoint[KEY].get("tuned", False)
        # With a limit of steps, Lightning 2.6 goes on from an epoch's end as if it were inside the epoch.
        self._max_steps = trainer.max_steps
        trainer.fit_loop.epoch_loop.max_steps = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores, after all that could draw from the streams; a new run forgets what a tuner's steps measured."""
        if not self.checkpoint:
            for _, metric in _train_metrics(pl_module):
                metric.reset()
            return
        trainer.fit_loop.epoch_loop.max_steps = self._max_steps
        for scheduler in callbacks_of(trainer, GradientAccumulationScheduler):  # looks at the start of epochs only
            trainer.accumulate_grad_batches = scheduler.get_accumulate_grad_batches(trainer.current_epoch)
        torch.set_rng_state(self._state["cpu_rng"])
        if self._state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(self._state["cuda_rng"], pl_module.device)
        for name, metric in _train_metrics(pl_module):
            for attribute, value in self._state["metrics"].get(name, {}).items():
                setattr(metric, attribute, value.to(pl_module.device) if isinstance(value, torch.Tensor) else value)
        self._state = {}
        self._is_at_validation = is_at_epoch_end(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Leaves the training metrics to the step, which logs them."""
        self._is_at_validation = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the training metrics of an epoch whose batches were all done before."""
        if self._is_at_validation and isinstance(pl_module, ImageClassifier):
            pl_module.log_dict(pl_module.train_metrics, on_step=False, on_epoch=True, prog_bar=True, logger=False)
        self._is_at_validation = False

    def _recipe(self, trainer: Trainer) -> dict[str, Any]:
        """What besides the model's hyper-parameters decides where a run ends, in plain types."""
        data = data_of(trainer)
        return {
            **_kept(data),
            "batch_size": data.batch_size,  # which a tuner sets here
            **{f"images of {split}": data.fingerprint[split]["sha256"] for split in ("train", "val")},
            **self._options,
        }


def require_same_options(checkpoint: Mapping[str, Any], model: ImageClassifier, data: ImageFolderDataModule) -> None:
    """Compares the options of model and data before anything costs time; ``ExactResume`` compares all, once it can.

    Without that, the old values in the optimiser's state would win in silence.

    Raises:
        UserError: An option that a resume has to keep differs, or the checkpoint cannot be resumed.
    """
    if fault := _fault(checkpoint, {**_kept(model), **_kept(data)}):
        raise UserError(fault)


def saved_recipe(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of the run that wrote the checkpoint; empty where there is none."""
    return checkpoint.get(KEY, {}).get("recipe", {})


def tuned_batch_size(checkpoint: Mapping[str, Any]) -> int | None:
    """Of a run whose learning rate or batch size a tuner has chosen; else None."""
    return saved_recipe(checkpoint)["batch_size"] if checkpoint.get(KEY, {}).get("tuned") else None


def resumed_from(trainer: Trainer) -> str | None:
    """The checkpoint that this fit goes on from, or None."""
    return next((callback.checkpoint for callback in callbacks_of(trainer, ExactResume)), None)


def _kept(part: Any) -> dict[str, Any]:
    """The options of the model or the data that a resume must not change."""
    return {name: value for name, value in part.hparams.items() if name not in part.FREE_ON_RESUME}


def _fault(checkpoint: Mapping[str, Any], came: dict[str, Any]) -> str:
    """Why a run cannot go on from the checkpoint with these options; empty where it can."""
    if missing := [name for name in (KEY, "optimizer_states", "lr_schedulers") if name not in checkpoint]:
        return f"expected a checkpoint with {listed(missing)} to resume, it has none: pass a last.ckpt"
    differing = differences({**checkpoint["hyper_parameters"], **saved_recipe(checkpoint)}, came)
    return differing and (
        f"this run differs from the checkpoint's ({differing}): resume with the options and the data of that run, or "
        "start a new one from its weights with --model.weights model.safetensors"
    )


def _train_metrics(module: LightningModule) -> list[tuple[str, Metric]]:
    return list(module.train_metrics.items(keep_base=True)) if isinstance(module, ImageClassifier) else []


def _metric_state(metric: Metric) -> dict[str, Any]:
    # On the CPU: another process's GPU is not this one's.
    tensors = {name: value.cpu() for name, value in metric.metric_state.items() if isinstance(value, torch.Tensor)}
    return {**tensors, "_update_count": metric.update_count}
