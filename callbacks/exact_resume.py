"""Makes a resumed run end where the uninterrupted one would have ended, to the bit."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torchmetrics import Metric

from callbacks.processes import fail, gather
from datamodules.errors import listed
from lightning_modules.classifier import ImageClassifier

KEY = "exact_resume"
DATA_RECIPE = ("seed", "batch_size", "image_size", "val_fraction", "on_bad_image", "augmentation")


class ExactResume(Callback):
    """Adds to a checkpoint what Lightning leaves out: random streams and half-filled metrics of every process.

    The order of images and their augmentation need no state: they are functions of seed, epoch and image, and the data
    module's sampler skips what was seen. What would make them others is compared, and refused where it differs.
    """

    def __init__(self) -> None:
        self._state: dict[str, Any] = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Collects every process's state."""
        cuda = pl_module.device.type == "cuda"
        _, batches = trainer.datamodule.resume_point()  # type: ignore[attr-defined]
        state = {
            "cpu_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(pl_module.device) if cuda else None,
            # At the end of an epoch they are full, and Lightning is about to empty them.
            "metrics": {name: _metric_state(metric) for name, metric in _train_metrics(pl_module) if batches},
        }
        checkpoint[KEY] = {"recipe": recipe(trainer), "processes": gather(trainer, state)}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Compares, and keeps this process's state.

        Raises:
            UserError: Data, seed, batch size, number of processes or another part of the recipe differ.
        """
        if trainer.state.fn != "fit":
            return
        if missing := [name for name in (KEY, "optimizer_states", "lr_schedulers") if name not in checkpoint]:
            fail(trainer, f"expected a checkpoint with {listed(missing)} to resume, it has none: pass a last.ckpt")
        expected, came = checkpoint[KEY]["recipe"], recipe(trainer)
        differing = [
            f"{name} {expected.get(name)}, got {came[name]}" for name in came if came[name] != expected.get(name)
        ]
        if differing:
            fail(
                trainer,
                f"expected the checkpoint's {listed(differing)}: resume with the options and the data of that run, or "
                "start anew from its weights with --model.weights model.safetensors",
            )
        self._state = checkpoint[KEY]["processes"][trainer.global_rank]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores, after all that could draw from the streams."""
        if not self._state:
            return
        torch.set_rng_state(self._state["cpu_rng"])
        if self._state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(self._state["cuda_rng"], pl_module.device)
        for name, metric in _train_metrics(pl_module):
            for attribute, value in self._state["metrics"].get(name, {}).items():
                setattr(metric, attribute, value.to(pl_module.device) if isinstance(value, torch.Tensor) else value)
        self._state = {}


def recipe(trainer: Trainer) -> dict[str, Any]:
    """What besides the model's hyper-parameters decides where a run ends, in plain types."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    return {
        **{name: data.hparams[name] for name in DATA_RECIPE},
        **{f"images of {split}": data.fingerprint[split]["sha256"] for split in ("train", "val")},
        "processes": trainer.world_size,
        "precision": str(trainer.precision),
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "gradient_clip_val": trainer.gradient_clip_val,
        "limit_train_batches": repr(trainer.limit_train_batches),  # 1 is a batch, 1.0 is all of them
        "device": trainer.strategy.root_device.type,
    }


def _train_metrics(module: LightningModule) -> list[tuple[str, Metric]]:
    return list(module.train_metrics.items(keep_base=True)) if isinstance(module, ImageClassifier) else []


def _metric_state(metric: Metric) -> dict[str, Any]:
    # On the CPU: another process's GPU is not this one's.
    tensors = {name: value.cpu() for name, value in metric.metric_state.items() if isinstance(value, torch.Tensor)}
    return {**tensors, "_update_count": metric.update_count}
