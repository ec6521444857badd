"""The network as an ONNX model, through torch's own exporter."""

import warnings
from typing import Any

import torch

from lightning_modules.exports.delivered import DeliveredNetwork
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
        warnings.simplefilter("ignore")
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
    for part in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        del part.metadata_props[:]  # stack traces, with paths of this machine
    return model
