"""The network as an ONNX model, through torch's own exporter."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from datamodules.files.errors import UserError
from lightning_modules.exports.delivered import DeliveredNetwork
from lightning_modules.exports.header import FOREIGN_KEY
from lightning_modules.exports.packages import require

INPUT, OUTPUT = "images", "probabilities"


def onnx_model(network: DeliveredNetwork, image_size: int) -> Any:
    """Returns an ``onnx.ModelProto`` that maps uint8 ``(batch, size, size, 3)`` to float32 ``(batch, classes)``.

    Raises:
        UserError: onnx or onnxscript is not installed.
    """
    for package in ("onnx", "onnxscript"):
        require(package, "onnx")
    images = torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the exporter does inside
        program = torch.onnx.export(
            network,
            (images,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]  # stack traces, with the paths of whoever exports
    return model


def halve_weights(model: Any) -> None:
    """Stores kernels and matrices in float16, and computes in float32 as before.

    Runtimes widen them once, when they load the file. Biases stay, as they take no room. ONNX Runtime has no float16
    kernels for the CPU: a graph that computes in it is converted to and fro around each operation.

    Raises:
        UserError: A weight is beyond float16's 65,504.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        name, values = tensor.name, numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            halved = values.astype(np.float16)
        if not np.isfinite(halved).all():
            raise UserError(f"{name} has weights above 65,504, which float16 cannot hold: choose --precision fp32")
        tensor.CopyFrom(numpy_helper.from_array(halved, f"{name}.fp16"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def onnx_bytes(model: Any, header: Mapping[str, str]) -> bytes:
    """Returns the file's content, with the header in ``metadata_props``."""
    del model.metadata_props[:]
    for name, text in header.items():
        if name != FOREIGN_KEY:
            model.metadata_props.add(key=name, value=text)
    return model.SerializeToString()


def onnx_session(source: str | bytes, threads: int) -> Any:
    """Opens a file, or its content, as an ``onnxruntime.InferenceSession`` on the CPU.

    Raises:
        UserError: onnxruntime is not installed.
        Exception: Of onnxruntime's own types, if the file is none that it can run.
    """
    ort = require("onnxruntime", "onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run_session(session: Any, images: np.ndarray) -> np.ndarray:
    """Maps uint8 RGB images ``(batch, size, size, 3)`` to float32 ``(batch, classes)``."""
    (probabilities,) = session.run([OUTPUT], {INPUT: images})
    return probabilities
