"""What a trained file says of itself: enough to rebuild the model and to read images as it did."""

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningDataModule
from torch import Tensor, nn

from datamodules.class_index import ClassIndex
from datamodules.files.errors import UserError, listed
from datamodules.images.transforms import MEAN, STD
from lightning_modules.classifier import ImageClassifier
from lightning_modules.weights.pruning import without_masks
from lightning_modules.weights.weights_file import SAFETENSORS_SUFFIX, load_safetensors, load_torch_file

# What of the data's settings an evaluation has to share with the training.
DATA_SETTINGS = ("image_size", "val_fraction", "seed")
NETWORK_PREFIX = "network."


@dataclass(frozen=True)
class TrainedModel:
    """The content of a ``.ckpt`` or of an exported ``.safetensors`` file.

    Attributes:
        model: Hyper-parameters of ``ImageClassifier``, ``class_names`` among them.
        data: The ``DATA_SETTINGS``.
        network: State dict of the network.
        epochs: How many a checkpoint's run has finished.
        steps: How many optimiser steps it has taken.
        precision: Of the fit, as Lightning's ``Trainer`` spells it; None where the file does not say.
        tuned_batch_size: Of a run whose learning rate or batch size a tuner has chosen, else None; its learning rate is
            among ``model``.
    """

    model: dict[str, Any]
    data: dict[str, Any]
    network: dict[str, Tensor]
    epochs: int = 0
    steps: int = 0
    precision: str | None = None
    tuned_batch_size: int | None = None

    def load_into(self, network: nn.Module) -> None:
        """Gives ``network`` the weights.

        Raises:
            UserError: Tensors are missing, or of other shapes.
        """
        try:
            network.load_state_dict(self.network)
        except RuntimeError as error:
            raise UserError(
                f"expected a checkpoint with all of its network's tensors, {error}: it was altered"
            ) from error


def export_metadata(model: ImageClassifier, data: LightningDataModule, metrics: dict[str, float]) -> dict[str, str]:
    """The header of ``model.safetensors``: what ``read_trained_model`` needs, and what a stranger to it wants."""
    settings = dict(model.hparams)
    values = {
        "classes": settings.pop("class_names"),
        "class_digest": model.classes.digest,
        "architecture": {name: settings.pop(name) for name in model.architecture},
        "training": settings,
        "data": {name: data.hparams[name] for name in DATA_SETTINGS},
        "image_size": data.hparams["image_size"],
        "normalization": {"mean": MEAN, "std": STD},
        "metrics": metrics,
        "precision": str(data.trainer.precision) if data.trainer else None,
    }
    # safetensors takes strings of UTF-8 only, which a folder's name need not be; "format" is what its readers look for.
    return {"format": "pt"} | {name: json.dumps(value) for name, value in values.items()}


def read_trained_model(path: Path) -> TrainedModel:
    """Reads a checkpoint of ``fit`` or an exported weights file.

    Raises:
        UserError: There is no such file, or it is something else, its classes do not match their hash, or it has a
            setting that this version does not know.
    """
    try:
        trained, digest = _read_export(path) if path.suffix == SAFETENSORS_SUFFIX else _read_checkpoint(path)
        classes = ClassIndex(trained.model["class_names"])
        if unknown := sorted(trained.model.keys() - inspect.signature(ImageClassifier).parameters.keys()):
            raise UserError(f"expected settings of this version in {path}, got {listed(unknown)}: update cbam100")
    except UserError:
        raise
    except Exception as error:  # whatever a stranger's file may lead to: KeyError, TypeError, RecursionError …
        raise UserError(
            f"expected {path} to be a checkpoint or an exported model of cbam100, it is not ({type(error).__name__}: "
            f"{error}): pass best.ckpt, last.ckpt or model.safetensors of a run folder"
        ) from error
    if classes.digest != digest:
        raise UserError(f"expected the classes in {path} to match their hash, they do not: the file was altered")
    return trained


def _read_checkpoint(path: Path) -> tuple[TrainedModel, str]:
    content = load_torch_file(path)
    data = {name: content["datamodule_hyper_parameters"][name] for name in DATA_SETTINGS}
    network = {
        name.removeprefix(NETWORK_PREFIX): tensor
        for name, tensor in without_masks(content["state_dict"]).items()
        if name.startswith(NETWORK_PREFIX)
    }
    epochs = int(content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
    state = content.get("exact_resume", {})
    recipe = state.get("recipe", {})
    tuned = recipe["batch_size"] if state.get("tuned") else None
    model = dict(content["hyper_parameters"])
    return TrainedModel(
        model, data, network, epochs, int(content["global_step"]), recipe.get("precision"), tuned
    ), content["class_digest"]


def _read_export(path: Path) -> tuple[TrainedModel, str]:
    network, header = load_safetensors(path)
    values = {name: json.loads(text) for name, text in header.items() if name != "format"}
    model = {"class_names": values["classes"], **values["architecture"], **values["training"]}
    return TrainedModel(model, values["data"], network, precision=values.get("precision")), values["class_digest"]
