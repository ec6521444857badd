"""Content of a trained file: enough to rebuild the model and to read images as it did."""

import inspect
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from datamodules.class_index import ClassIndex
from datamodules.files.errors import UserError, listed
from datamodules.image_folder import HELD_OUT, ImageFolderDataModule
from datamodules.images.transforms import MEAN, STD
from lightning_modules.classifier import ImageClassifier
from lightning_modules.differing_options import differences
from lightning_modules.metrics.temperature import CALIBRATED
from lightning_modules.network.model_size import stored_shapes
from lightning_modules.weights.pruning import without_masks
from lightning_modules.weights.state_dicts import require_finite
from lightning_modules.weights.weights_file import (
    SAFETENSORS_SUFFIX,
    load_safetensors,
    load_torch_file,
    safetensors_size,
)

NETWORK_PREFIX = "network."
GRAPH_SUFFIXES = (".onnx", ".xml")  # of files that answer, but whose weights cannot be loaded into a network
# Options of the data module that came later, as files without them were made:
ADDED: dict[str, Any] = {"folds": 0, "fold": 0, "group_column": None, "group_pattern": None}
MODULE_STATE = ImageFolderDataModule.__qualname__  # under which Lightning saves the data module's state
LONGEST_NUMBER = -sys.float_info.min  # in JSON: -2.2250738585072014e-308


@dataclass(frozen=True)
class TrainedModel:
    """The content of a ``.ckpt`` or of an exported ``.safetensors`` file.

    Attributes:
        model: Hyper-parameters of ``ImageClassifier``, including ``class_names``.
        data: The data module's options ``IN_TRAINED_FILE``.
        network: State dict of the network.
        epochs: Number of epochs that a checkpoint's run has finished.
        steps: Number of its optimiser steps.
        precision: Precision of the fit, as Lightning's ``Trainer`` spells it, if the file is an export that states it.
        temperature: What logits are divided by for probabilities, if the fit has fitted it.
        held_out: Hash of the names of the images that the fit held out, if it did and the file states it.
        metrics: What the fit measured of these weights in its best epoch, as far as the file states it.
        checkpoint: The whole checkpoint, for callbacks that keep their state in it; empty for an export.
    """

    model: dict[str, Any]
    data: dict[str, Any]
    network: dict[str, Tensor]
    epochs: int = 0
    steps: int = 0
    precision: str | None = None
    temperature: float | None = None
    held_out: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    checkpoint: dict[str, Any] = field(default_factory=dict)

    def load_into(self, model: ImageClassifier) -> None:
        """Loads the weights into ``model``, and the temperature unless its options leave it out.

        Raises:
            UserError: Its classes or its architecture differ, tensors are missing or of other shapes, or its options
                ask for a temperature that the file does not hold.
        """
        wanted = {name: model.hparams[name] for name in ("class_names", *model.architecture)}
        if differing := differences(self.model, wanted):
            raise UserError(f"the model differs from the checkpoint's ({differing}): leave the option out")
        if model.hparams["temperature"] == "fit":
            if self.temperature is None:
                raise UserError(
                    "--model.temperature fit takes effect in a fit, which stores the temperature with the weights, but "
                    "this file holds none: leave the option out"
                )
            model.temperature = self.temperature
        try:
            model.network.load_state_dict(self.network)
        except RuntimeError as error:
            raise UserError(
                f"its tensors do not match its options, so the checkpoint was altered: restore the original ({error})"
            ) from error


def export_metadata(model: ImageClassifier, data: ImageFolderDataModule, metrics: dict[str, float]) -> dict[str, str]:
    """Builds the header of ``model.safetensors``: what ``read_trained_model`` needs, and facts for other readers."""
    options = {name: data.hparams[name] for name in data.IN_TRAINED_FILE}
    precision = str(data.trainer.precision) if data.trainer else None
    return describe(model, options, metrics, precision, data.held_out_digest)


def describe(
    model: ImageClassifier,
    data: Mapping[str, Any],
    metrics: Mapping[str, float],
    precision: str | None,
    held_out: str | None,
) -> dict[str, str]:
    """Builds the header from the data module's options ``IN_TRAINED_FILE`` and facts of ``TrainedModel``."""
    settings = dict(model.hparams)
    values = {
        "classes": settings.pop("class_names"),
        "class_digest": model.classes.digest,
        "architecture": {name: settings.pop(name) for name in model.architecture},
        "training": settings,
        "data": dict(data),
        "image_size": data["image_size"],
        "normalization": {"mean": MEAN, "std": STD},
        "metrics": dict(metrics),
        "precision": precision,
        **({"temperature": model.temperature} if settings["temperature"] == "fit" else {}),
        **({HELD_OUT: held_out} if held_out else {}),
    }
    # JSON, as safetensors takes only UTF-8 strings, which a folder's name need not be. Its readers look for "format".
    return {"format": "pt"} | {name: json.dumps(value) for name, value in values.items()}


def largest_export_bytes(model: ImageClassifier, data: ImageFolderDataModule, dtype: torch.dtype | None = None) -> int:
    """Returns the most bytes that ``model.safetensors`` will take in ``dtype``, whatever metrics and learning rate.

    Only metrics of a user's own callbacks are not counted, as they are not known before.
    """
    measured = [str(name) for metrics in (model.train_metrics, model.val_metrics) for name in metrics.keys()]  # noqa: SIM118
    fitted = {"temperature": json.dumps(LONGEST_NUMBER)} if model.hparams["temperature"] == "fit" else {}
    names = ["epoch", "partial", "learning_rate", *measured, *(CALIBRATED if fitted else ())]
    held_out = {HELD_OUT: json.dumps("0" * 64)}
    metadata = export_metadata(model, data, dict.fromkeys(names, LONGEST_NUMBER)) | fitted | held_out
    return safetensors_size(stored_shapes(model.network, dtype), metadata)


def read_trained_model(path: Path) -> TrainedModel:
    """Reads a checkpoint of ``fit`` or an exported file; of a graph only what it says about itself, without weights.

    Raises:
        UserError: The file is missing or something else, its classes do not match their hash, a weight is not finite,
            or it has a setting that this version does not know or of a wrong type.
    """
    try:
        readers = {SAFETENSORS_SUFFIX: _read_export, **dict.fromkeys(GRAPH_SUFFIXES, _read_graph)}
        trained, digest = readers.get(path.suffix, _read_checkpoint)(path)
        classes = ClassIndex(trained.model["class_names"])
        _require_known(trained, path)
        require_finite(trained.network, path)
    except UserError:
        raise
    except Exception as error:  # a foreign file may lead to any: KeyError, TypeError, RecursionError …
        raise UserError(
            f"{path} is not a checkpoint or exported model of cbam100 ({type(error).__name__}: {error}): pass "
            "best.ckpt, last.ckpt or model.safetensors of a run folder, or a file of cbam100 export"
        ) from error
    if classes.digest != digest:
        raise UserError(f"the classes in {path} do not match their hash: the file was altered")
    return trained


def require_weights(path: Path) -> None:
    """Raises ``UserError`` if the file is an exported graph, which can only be used for predictions."""
    if path.suffix in GRAPH_SUFFIXES:
        raise UserError(
            f"{path} can only be used by cbam100 predict, as its weights cannot be loaded into a network: pass the "
            ".ckpt or .safetensors file that it was exported from"
        )


def load_classifier(path: Path) -> tuple[ImageClassifier, TrainedModel]:
    """Returns a trained model in evaluation mode, and what its file says about it.

    Raises:
        UserError: The file cannot be read, or its weights do not fit the model that it describes.
    """
    require_weights(path)
    trained = read_trained_model(path)
    model = ImageClassifier(**trained.model)
    trained.load_into(model)
    return model.eval(), trained


def _require_known(trained: TrainedModel, path: Path) -> None:
    """Checks names and types of settings, as those of a file are used without the command line's parser."""
    known = inspect.signature(ImageClassifier).parameters.keys()
    unknown = sorted((trained.model.keys() - known) | (trained.data.keys() - {*ImageFolderDataModule.IN_TRAINED_FILE}))
    if unknown:
        raise UserError(f"{path} has settings unknown to this version ({listed(unknown)}): update cbam100")
    facts = {"precision": trained.precision, "temperature": trained.temperature, HELD_OUT: trained.held_out}
    settings: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (get_type_hints(ImageClassifier.__init__), trained.model),
        (get_type_hints(ImageFolderDataModule.__init__), trained.data),
        ({"precision": str | None, "temperature": float | None, HELD_OUT: str | None}, facts),
    ]
    wrong = [f"{k} {v!r}" for types, values in settings for k, v in values.items() if not _is_of_type(v, types[k])]
    if not wrong and trained.temperature is not None and not 0 < trained.temperature < math.inf:
        wrong = [f"temperature {trained.temperature}"]
    if wrong:
        raise UserError(f"{path} has settings that cannot be used ({listed(wrong)}): the file was altered")


def _is_of_type(value: Any, hint: Any) -> bool:
    """Tells whether a value has the type of an option: a plain one, a union, a list, or one of several literals."""
    inside = get_args(hint)
    if get_origin(hint) is Literal:
        return value in inside
    if get_origin(hint) is list:
        return isinstance(value, list | tuple) and all(_is_of_type(item, inside[0]) for item in value)
    if inside:
        return any(_is_of_type(value, kind) for kind in inside)
    return isinstance(value, int | float if hint is float else hint) and (hint is bool or not isinstance(value, bool))


def _read_checkpoint(path: Path) -> tuple[TrainedModel, str]:
    content = load_torch_file(path)
    options = ADDED | content["datamodule_hyper_parameters"]
    data = {name: options[name] for name in ImageFolderDataModule.IN_TRAINED_FILE}
    network = {
        name.removeprefix(NETWORK_PREFIX): tensor
        for name, tensor in without_masks(content["state_dict"]).items()
        if name.startswith(NETWORK_PREFIX)
    }
    epochs = int(content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
    model = dict(content["hyper_parameters"])
    steps = int(content["global_step"])
    held_out = content.get(MODULE_STATE, {}).get(HELD_OUT)
    facts: dict[str, Any] = {"temperature": content.get("temperature"), HELD_OUT: held_out}
    trained = TrainedModel(model, data, network, epochs, steps, **facts, checkpoint=content)
    return trained, content["class_digest"]


def _read_export(path: Path) -> tuple[TrainedModel, str]:
    tensors, header = load_safetensors(path)
    # Exports in half precision are computed with in float32.
    network = {name: t.float() if t.is_floating_point() and t.itemsize < 4 else t for name, t in tensors.items()}
    return _described({name: json.loads(text) for name, text in header.items() if name != "format"}, network)


def _read_graph(path: Path) -> tuple[TrainedModel, str]:
    from lightning_modules.exports.runtime import open_runtime  # which needs this module

    return _described(open_runtime(path).header, {})


def _described(values: dict[str, Any], network: dict[str, Tensor]) -> tuple[TrainedModel, str]:
    model = {"class_names": values["classes"], **values["architecture"], **values["training"]}
    options = ADDED | values["data"]
    data = {name: options[name] for name in (*ImageFolderDataModule.IN_TRAINED_FILE, *options)}
    facts: dict[str, Any] = {name: values.get(name) for name in ("precision", "temperature", HELD_OUT)}
    facts["metrics"] = values.get("metrics", {})
    return TrainedModel(model, data, network, **facts), values["class_digest"]
