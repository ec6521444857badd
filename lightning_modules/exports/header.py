"""What an exported file says about itself: one flat dictionary of JSON texts, the same in every format."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from datamodules.class_index import ClassIndex
from datamodules.files.errors import UserError
from datamodules.files.version import version
from datamodules.images.transforms import side_to_load
from lightning_modules.classifier import ImageClassifier
from lightning_modules.trained_model import TrainedModel, describe

Format = Literal["safetensors", "onnx", "openvino"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
PRECISIONS: dict[Format, tuple[Precision, ...]] = {
    "safetensors": ("fp32", "fp16", "bf16"),
    "onnx": ("fp32", "fp16", "int8"),
    "openvino": ("fp32", "fp16", "int8"),
}
SUFFIXES: dict[Format, str] = {"safetensors": ".safetensors", "onnx": ".onnx", "openvino": ".xml"}
FOREIGN_KEY = "format"  # of safetensors' readers; the only value that is no JSON


def require_pair(format: Format, precision: Precision) -> None:
    """Raises ``UserError`` if files of this format cannot have this precision."""
    if format not in PRECISIONS:
        raise UserError(f"--format must be {' or '.join(get_args(Format))}, got {format}")
    if precision not in PRECISIONS[format]:
        others = [other for other, precisions in PRECISIONS.items() if precision in precisions]
        way_out = f", or --format {' or '.join(others)}" if others else ""
        raise UserError(
            f"--format {format} has no precision {precision}: choose --precision "
            f"{' or '.join(PRECISIONS[format])}{way_out}"
        )


def export_header(
    model: ImageClassifier,
    trained: TrainedModel,
    *,
    format: Format,
    precision: Precision,
    metrics: Mapping[str, float] | None = None,
) -> dict[str, str]:
    """Builds the header of an export, but for the self-test, which ``write_export`` adds.

    Args:
        model: The classifier that ``trained`` was loaded into.
        trained: Content of the trained file.
        format: Format of the export.
        precision: Precision of the export's weights.
        metrics: What was measured of the model, if ``trained`` does not state it, as a checkpoint does not.
    """
    size = trained.data["image_size"]
    resize = {"resample": "bilinear", "antialias": True, "shorter_side": side_to_load(size), "crop": "center"}
    values = {"version": version(), "resize": resize, "export": {"format": format, "precision": precision}}
    described = describe(model, trained.data, metrics or trained.metrics, trained.precision, trained.held_out)
    return described | {name: json.dumps(value) for name, value in values.items()}


def decoded(texts: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Returns the values of a header, checked as far as a prediction relies on them.

    Raises:
        UserError: It is not a header of this project, or its classes do not match their hash.
    """
    try:
        values = {name: json.loads(text) for name, text in texts.items() if name != FOREIGN_KEY}
        names, digest = list(map(str, values["classes"])), values["class_digest"]
        kinds = {"image_size": int, "resize": dict, "export": dict}
        is_sound = names == values["classes"] and all(type(values[name]) is kind for name, kind in kinds.items())
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise foreign(path, f"{type(error).__name__}: {error}") from error
    if not is_sound:
        raise foreign(path, "a value of its header is of another kind")
    if ClassIndex(names).digest != digest:
        raise UserError(f"the classes in {path} do not match their hash: the file was altered")
    return values


def foreign(path: Path, reason: str) -> UserError:
    """Returns the error that ``path`` is damaged or of another project, with a library's reason on one line."""
    said = " ".join(re.sub(r"Exception from \S+:", "", reason).split())  # where in OpenVINO's source
    return UserError(f"{path} is not a model exported by cbam100, or is damaged ({said}): export it again")
