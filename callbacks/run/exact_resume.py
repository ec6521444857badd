"""State that makes a resumed run end with the same bits as an uninterrupted one."""

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
from typing_extensions import override

from callbacks.processes import fail, gather
from callbacks.run.loop_state import is_at_epoch_end
from callbacks.run.recipe import NOT_RESUMABLE, STORED, option_defaults, trainer_options
from callbacks.trainer_parts import callbacks_of, data_of
from datamodules import ImageFolderDataModule
from datamodules.files.errors import UserError, listed
from lightning_modules.classifier import ImageClassifier
from lightning_modules.differing_options import differences

KEY = "exact_resume"
TUNERS = (BatchSizeFinder, LearningRateFinder)


class ExactResume(Callback):
    """Adds to checkpoints what Lightning leaves out: random states and half-filled metrics of every process.

    The order of images and their augmentation need no state: they are functions of seed, epoch and image, and the data
    module's sampler skips what was seen. Options that would change them are compared, and a difference is an error.

    Args:
        checkpoint: Checkpoint that the command resumes from, or None for a new run. Lightning's ``trainer.ckpt_path``
            is None in ``setup``, and set by its tuners in a new run.
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

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        # Before other callbacks change the Trainer
        self._options = {**trainer_options(trainer), "callbacks": self.training_callbacks}
        self._options |= _length(trainer, pl_module, data_of(trainer))
        for callback in callbacks_of(trainer, Callback) if self.checkpoint else ():
            name = type(callback).__name__
            if isinstance(callback, NOT_RESUMABLE):
                raise UserError(
                    f"{name} cannot be resumed exactly from {self.checkpoint}: start a new run from its weights with "
                    "--model.weights model.safetensors"
                )
            if isinstance(callback, TUNERS):
                raise UserError(
                    f"{name} can only tune a new run, but this one resumes {self.checkpoint}: leave it out, or start "
                    "a new run from its weights with --model.weights model.safetensors"
                )

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        _, batches = data_of(trainer).resume_point()
        state = {
            "cpu_rng": torch.get_rng_state(),
            "cuda_rng": _random_state(pl_module.device),
            # At the end of an epoch they are complete, and Lightning is about to reset them.
            "metrics": {name: _metric_state(metric) for name, metric in _train_metrics(pl_module) if batches},
        }
        self._tuned |= any(isinstance(callback, TUNERS) for callback in callbacks_of(trainer, Callback))
        checkpoint[KEY] = {"recipe": self._recipe(trainer), "tuned": self._tuned, "processes": gather(trainer, state)}

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != "fit" or not self.checkpoint:
            return
        given = {**_kept(pl_module), **self._recipe(trainer)}
        if fault := _fault(checkpoint, given, _needs_length(pl_module, data_of(trainer))):
            fail(trainer, fault)
        self._state = checkpoint[KEY]["processes"][trainer.global_rank]
        self._tuned = checkpoint[KEY].get("tuned", False)
        # With a limit of steps, Lightning 2.6 would resume at an epoch's end as if it were inside the epoch.
        self._max_steps = trainer.max_steps
        trainer.fit_loop.epoch_loop.max_steps = -1

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.checkpoint:  # a tuner may have taken steps
            for _, metric in _train_metrics(pl_module):
                metric.reset()
            return
        trainer.fit_loop.epoch_loop.max_steps = self._max_steps
        for scheduler in callbacks_of(trainer, GradientAccumulationScheduler):  # acts only at the start of epochs
            trainer.accumulate_grad_batches = scheduler.get_accumulate_grad_batches(trainer.current_epoch)
        # Random states are restored last, after all that could draw from them.
        torch.set_rng_state(self._state["cpu_rng"])
        if self._state["cuda_rng"] is not None:
            _set_random_state(self._state["cuda_rng"], pl_module.device)
        for name, metric in _train_metrics(pl_module):
            for attribute, value in self._state["metrics"].get(name, {}).items():
                setattr(metric, attribute, value.to(pl_module.device) if isinstance(value, torch.Tensor) else value)
        self._state = {}
        self._is_at_validation = is_at_epoch_end(trainer)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._is_at_validation = False

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # No step of this epoch is left that would log its training metrics.
        if self._is_at_validation and isinstance(pl_module, ImageClassifier):
            pl_module.log_dict(pl_module.train_metrics, on_step=False, on_epoch=True, prog_bar=True, logger=False)
        self._is_at_validation = False

    def _recipe(self, trainer: Trainer) -> dict[str, Any]:
        """Returns what influences training besides the model's hyper-parameters, in plain types."""
        data = data_of(trainer)
        return {
            **_kept(data),
            "batch_size": data.batch_size,  # the value that a tuner has chosen
            **{f"images of {split}": data.fingerprint[split]["sha256"] for split in ("train", "val")},
            **self._options,
        }


def require_same_options(
    checkpoint: Mapping[str, Any], trainer: Trainer, model: ImageClassifier, data: ImageFolderDataModule
) -> None:
    """Compares the options of model and data, and the length of the run where it matters, before anything takes time.

    ``ExactResume`` later compares all.

    Otherwise the old values in the optimiser's state would silently win.

    Raises:
        UserError: An option that must stay the same differs, or the checkpoint cannot be resumed.
    """
    given = {**_kept(model), **_kept(data), **_length(trainer, model, data)}
    if fault := _fault(checkpoint, given, _needs_length(model, data)):
        raise UserError(fault)


def saved_recipe(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the recipe of the run that wrote the checkpoint; empty if it holds none."""
    return checkpoint.get(KEY, {}).get("recipe", {})


def tuned_batch_size(checkpoint: Mapping[str, Any]) -> int | None:
    """Returns the batch size of a run whose learning rate or batch size a tuner has chosen, else None."""
    return saved_recipe(checkpoint)["batch_size"] if checkpoint.get(KEY, {}).get("tuned") else None


def resumed_from(trainer: Trainer) -> str | None:
    """Returns the checkpoint that this fit resumes from, or None."""
    return next((callback.checkpoint for callback in callbacks_of(trainer, ExactResume)), None)


def _random_state(device: torch.device) -> torch.Tensor | None:
    """Returns the state of the generator that dropout on this device draws from, or None for the CPU's."""
    if device.type == "cpu":
        return None
    return torch.mps.get_rng_state() if device.type == "mps" else torch.cuda.get_rng_state(device)


def _set_random_state(state: torch.Tensor, device: torch.device) -> None:
    if device.type == "mps":
        torch.mps.set_rng_state(state)
    elif device.type == "cuda":
        torch.cuda.set_rng_state(state, device)


def _kept(part: Any) -> dict[str, Any]:
    """Returns the options of the model or the data module that a resumed run must keep."""
    return {name: value for name, value in part.hparams.items() if name not in part.FREE_ON_RESUME}


def _needs_length(model: LightningModule, data: ImageFolderDataModule) -> list[str]:
    return [*getattr(model, "needs_length", []), *data.needs_length]


def _length(trainer: Trainer, model: LightningModule, data: ImageFolderDataModule) -> dict[str, int]:
    """Returns the limits of the run where an option depends on its length; -1 is no limit."""
    limits = {"max_epochs": -1 if trainer.max_epochs is None else trainer.max_epochs, "max_steps": trainer.max_steps}
    return limits if _needs_length(model, data) else {}


def _fault(checkpoint: Mapping[str, Any], given: dict[str, Any], needs_length: list[str]) -> str:
    """Returns why a run cannot resume from the checkpoint with these options; empty if it can."""
    if missing := [name for name in (KEY, "optimizer_states", "lr_schedulers") if name not in checkpoint]:
        return f"the checkpoint cannot be resumed, as it lacks {listed(missing)}: pass a last.ckpt"
    defaults = {STORED: "fp32", **option_defaults(ImageClassifier), **option_defaults(ImageFolderDataModule)}
    saved = {**defaults, **checkpoint["hyper_parameters"], **saved_recipe(checkpoint)}
    limits: dict[str, Any] = {name: given[name] for name in ("max_epochs", "max_steps") if name in given}
    new_run = "start a new one from its weights with --model.weights model.safetensors"
    if differing := differences(saved, {name: value for name, value in given.items() if name not in limits}):
        return (
            f"this run differs from the checkpoint's ({differing}): resume with the options and the data of that run, "
            f"or {new_run}"
        )
    if differing := differences(saved, limits):
        same = " ".join(f"--trainer.{name} {saved.get(name, value)}" for name, value in limits.items())
        return (
            f"this run is not as long as the checkpoint's ({differing}), which matters to {listed(needs_length)}: "
            f"resume with {same}, or {new_run}"
        )
    return ""


def _train_metrics(module: LightningModule) -> list[tuple[str, Metric]]:
    return list(module.train_metrics.items(keep_base=True)) if isinstance(module, ImageClassifier) else []


def _metric_state(metric: Metric) -> dict[str, Any]:
    # On the CPU, as each process has a GPU of its own
    tensors = {name: value.cpu() for name, value in metric.metric_state.items() if isinstance(value, torch.Tensor)}
    return {**tensors, "_update_count": metric.update_count}
