"""Writes an export."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from datamodules.files.atomic_file import write_bytes
from lightning_modules.classifier import ImageClassifier
from lightning_modules.exports.delivered import DeliveredNetwork
from lightning_modules.exports.header import FOREIGN_KEY, Format, Precision, require_pair
from lightning_modules.exports.onnx_file import onnx_model

TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def write_export(
    model: ImageClassifier,
    header: Mapping[str, str],
    path: Path,
    *,
    format: Format,
    precision: Precision,
    calibration: Iterator[np.ndarray] | None = None,
) -> int:
    """Writes one file, or for OpenVINO a pair, and returns its bytes.

    Args:
        model: The trained classifier.
        header: What ``export_header`` returns for it.
        path: The file, with the suffix of its format.
        format: Format of the file.
        precision: Precision of its weights.
        calibration: Batches of resized images, uint8 ``(batch, size, size, 3)``, which int8 needs.

    Raises:
        UserError: The format has no such precision, a package is missing, or the file cannot be written.
    """
    require_pair(format, precision)
    if format == "safetensors":
        tensors = {
            name: tensor.to(TYPES[precision]) if tensor.is_floating_point() else tensor
            for name, tensor in model.network.state_dict().items()
        }
        content = safetensors.torch.save({k: v.cpu().contiguous() for k, v in tensors.items()}, dict(header))
    else:
        import json

        proto = onnx_model(DeliveredNetwork(model), json.loads(header["image_size"]))
        for name, text in header.items():
            if name != FOREIGN_KEY:
                proto.metadata_props.add(key=name, value=text)
        content = proto.SerializeToString()
    write_bytes(path, content)
    return len(content)
