"""Writes a trained classifier to a file of any format and precision."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from datamodules.files.atomic_file import write_bytes
from datamodules.files.errors import UserError, listed
from lightning_modules.classifier import ImageClassifier
from lightning_modules.exports.delivered import DeliveredNetwork
from lightning_modules.exports.header import Format, Precision, require_pair
from lightning_modules.exports.onnx_file import halve_weights, onnx_bytes, onnx_model, onnx_session, run_session
from lightning_modules.exports.openvino_file import openvino_model, openvino_network, run_network, write_openvino
from lightning_modules.exports.packages import require
from lightning_modules.exports.quantization import quantize
from lightning_modules.exports.self_test import make_self_test
from lightning_modules.network.rounding import STORED_TYPES, as_stored


def write_export(
    model: ImageClassifier,
    header: Mapping[str, str],
    path: Path,
    *,
    format: Format,
    precision: Precision,
    calibration: Iterator[np.ndarray] | None = None,
) -> int:
    """Writes one file, or for OpenVINO the pair of ``path`` and its ``.bin``, and returns its bytes.

    The self-test of an ONNX or OpenVINO file is what the file itself answers here, so that the rounding of its weights
    does not blur it; whether the file answers as the checkpoint does is for its caller to measure.

    Args:
        model: The trained classifier.
        header: What ``export_header`` returns for it.
        path: The file, with the suffix of its format.
        format: Format of the file.
        precision: Precision of its weights.
        calibration: Batches of resized training images, uint8 ``(batch, size, size, 3)``, which int8 needs.

    Raises:
        UserError: The format has no such precision, a package is missing, a weight is out of float16's range, or the
            file cannot be written.
    """
    require_pair(format, precision)
    if format == "safetensors":
        content = _safetensors(model, header, STORED_TYPES[precision] or torch.float32)
        write_bytes(path, content)
        return len(content)
    if format == "openvino":
        require("openvino", "openvino")  # before the work begins
    require("onnxruntime", "onnx")
    size, threads = json.loads(header["image_size"]), torch.get_num_threads()
    graph = onnx_model(DeliveredNetwork(model), size)
    if precision == "int8":
        graph = quantize(graph, calibration or iter(()), path.parent, joins_activations=format == "onnx")
    if precision == "fp16":
        halve_weights(graph)
    if format == "openvino":
        network = openvino_model(onnx_bytes(graph, {}))
        compiled = openvino_network(network, threads, exact=precision == "fp32")
        test = make_self_test(lambda images: run_network(compiled, images), size, precision)
        header = {**header, "self_test": json.dumps(test)}
        return write_openvino(network, header, path)
    session = onnx_session(onnx_bytes(graph, {}), threads)
    test = make_self_test(lambda images: run_session(session, images), size, precision)
    content = onnx_bytes(graph, {**header, "self_test": json.dumps(test)})
    write_bytes(path, content)
    return len(content)


def _safetensors(model: ImageClassifier, header: Mapping[str, str], dtype: torch.dtype) -> bytes:
    tensors = {name: as_stored(tensor, dtype).cpu().contiguous() for name, tensor in model.network.state_dict().items()}
    infinite = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if infinite:
        raise UserError(
            f"{listed(infinite)} has values above {torch.finfo(dtype).max:,.0f}, which "
            f"{str(dtype).removeprefix('torch.')} cannot hold: choose --precision fp32"
        )
    return safetensors.torch.save(tensors, dict(header))
