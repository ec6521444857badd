"""Static quantisation to int8 by ONNX Runtime: 8-bit convolutions between which activations stay in 8 bits."""

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.files.errors import UserError
from lightning_modules.exports.onnx_file import INPUT
from lightning_modules.exports.packages import require

# What lies between convolutions, so that activations need not be widened there. The gates stay in float32: they cost
# nothing, and their factors have a range of their own for each image.
JOINED = ["Conv", "Add", "MaxPool", "Relu"]
PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")  # else the quantiser warns; batch norm is folded already


def quantize(model: Any, calibration: Iterator[np.ndarray], folder: Path, *, joins_activations: bool) -> Any:
    """Returns an ``onnx.ModelProto`` with QuantizeLinear and DequantizeLinear before each convolution.

    Weights are int8 with a scale for each output channel; activations are uint8 with one for each tensor, from their
    smallest and largest values in each calibration batch, averaged over batches. Weights use 7 of 8 bits: without
    VNNI a CPU adds two products in 16 bits, which overflow with 8.

    Args:
        model: The network as ``onnx_model`` returns it; left unchanged.
        calibration: Batches of images, uint8 ``(batch, size, size, 3)``.
        folder: Folder for files in between.
        joins_activations: Whether to quantise what follows a convolution too, which ONNX Runtime needs for its speed.
            OpenVINO joins them itself, and misreads the outputs.

    Raises:
        UserError: onnxruntime is not installed, or there are no calibration images.
    """
    require("onnxruntime", "onnx")
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(calibration, None)
            return None if batch is None else {INPUT: batch}

    first = next(calibration, None)
    if first is None:
        raise UserError("int8 needs training images to measure activations on, and there are none: look at --data.root")
    calibration = itertools.chain([first], calibration)
    with tempfile.TemporaryDirectory(prefix=".cbam100.", dir=folder) as own:
        source, result = Path(own, "float.onnx"), Path(own, "int8.onnx")
        prepared = onnx.ModelProto()
        prepared.CopyFrom(model)
        prepared.metadata_props.add(key=PREPARED[0], value=PREPARED[1])
        onnx.save_model(prepared, os.fspath(source))
        quantize_static(
            source,
            result,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=JOINED if joins_activations else ["Conv"],
            extra_options={
                # One image among hundreds can have activations far beyond all others, which would widen every step.
                "CalibMovingAverage": True,
                **({} if joins_activations else {"OpTypesToExcludeOutputQuantization": ["Conv"]}),
            },
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load_model(os.fspath(result))
