"""Opens a trained file of any format for predictions on the CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from datamodules.files.errors import UserError, listed
from lightning_modules.exports.delivered import DeliveredNetwork
from lightning_modules.exports.header import decoded, export_header, foreign
from lightning_modules.exports.onnx_file import onnx_session, run_session
from lightning_modules.exports.openvino_file import openvino_network, read_openvino, run_network
from lightning_modules.exports.packages import require
from lightning_modules.exports.self_test import self_test_difference
from lightning_modules.predictor import on_cpu
from lightning_modules.trained_model import load_classifier


class Runtime(Protocol):
    """An opened file.

    Attributes:
        header: What the file says about itself, with decoded values.
        description: What runs it: "ONNX Runtime 1.32.0, CPU, 2 threads, int8".
    """

    header: dict[str, Any]
    description: str

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Maps uint8 RGB images ``(batch, size, size, 3)`` to float32 ``(batch, classes)``."""
        ...


def open_runtime(path: Path, *, threads: int | None = None) -> Runtime:
    """Opens a ``.ckpt``, ``.safetensors``, ``.onnx`` or ``.xml`` file; which of them decides what runs it.

    Args:
        path: The file; beside an ``.xml`` lies its ``.bin``.
        threads: Number of CPU threads; by default, as many as torch uses.

    Raises:
        UserError: The file is missing, damaged or of another project, its classes do not match their hash, it fails its
            own self-test, or the package that runs it is not installed.
    """
    runtimes: dict[str, Callable[[Path, int], Runtime]] = {
        ".ckpt": TorchRuntime,
        ".safetensors": TorchRuntime,
        ".onnx": OnnxRuntime,
        ".xml": OpenvinoRuntime,
    }
    if path.suffix not in runtimes:
        raise UserError(f"--ckpt_path must end in {listed([*runtimes])}, got {path}: export one with cbam100 export")
    if not path.is_file():
        raise UserError(f"there is no file at {path}: check the path")
    return runtimes[path.suffix](path, threads or torch.get_num_threads())


class TorchRuntime:
    """Runs a checkpoint or safetensors file in float32, whatever the precision of its weights."""

    def __init__(self, path: Path, threads: int) -> None:
        model, trained = load_classifier(path)
        self.header = decoded(export_header(model, trained, format="safetensors", precision="fp32"), path)
        self._network = DeliveredNetwork(model)
        torch.set_num_threads(threads)
        self.description = f"PyTorch {torch.__version__}, {on_cpu(threads)}, fp32"

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Maps uint8 RGB images ``(batch, size, size, 3)`` to float32 ``(batch, classes)``."""
        with torch.inference_mode():
            return self._network(torch.from_numpy(images)).numpy()


class OnnxRuntime:
    """Runs an ONNX file with ONNX Runtime."""

    def __init__(self, path: Path, threads: int) -> None:
        ort = require("onnxruntime", "onnx")
        try:
            self._session = onnx_session(str(path), threads)
            texts = self._session.get_modelmeta().custom_metadata_map
        except Exception as error:  # onnxruntime's own types have no base of their own
            raise foreign(path, str(error)) from error
        self.header = decoded(texts, path)
        _require_self_test(self, path)
        precision = self.header["export"]["precision"]
        self.description = f"ONNX Runtime {ort.__version__}, {on_cpu(threads)}, {precision}"

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Maps uint8 RGB images ``(batch, size, size, 3)`` to float32 ``(batch, classes)``."""
        return run_session(self._session, images)


class OpenvinoRuntime:
    """Runs a pair of ``.xml`` and ``.bin`` with OpenVINO."""

    def __init__(self, path: Path, threads: int) -> None:
        openvino = require("openvino", "openvino")
        try:
            model, texts = read_openvino(path)
            self.header = decoded(texts, path)
            precision = self.header["export"]["precision"]
            self._network = openvino_network(model, threads, exact=precision == "fp32")
        except UserError:
            raise
        except Exception as error:  # RuntimeError for most, but a foreign header may lead to any
            raise foreign(path, str(error)) from error
        _require_self_test(self, path)
        release = openvino.__version__.partition("-")[0]
        computes = self._network.get_property("INFERENCE_PRECISION_HINT").to_string()
        self.description = f"OpenVINO {release}, {on_cpu(threads)}, {precision} (computes in {computes})"

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Maps uint8 RGB images ``(batch, size, size, 3)`` to float32 ``(batch, classes)``."""
        return run_network(self._network, images)


def _require_self_test(runtime: "OnnxRuntime | OpenvinoRuntime", path: Path) -> None:
    """Checks that a graph answers as it did when it was written, as weights that were damaged would not."""
    try:
        difference = self_test_difference(runtime.header, runtime.probabilities)
        tolerance = float(runtime.header["self_test"]["tolerance"])
    except Exception as error:  # the test may be missing, or a foreign graph take another input
        raise foreign(path, f"its self-test cannot be run, {type(error).__name__}: {error}") from error
    if not difference <= tolerance:  # NaN is not, either
        raise UserError(
            f"{path} fails its own self-test: a probability is {difference:.2g} from what the file says, more than "
            f"{tolerance:.2g}, so that it was damaged or altered: export it again"
        )
