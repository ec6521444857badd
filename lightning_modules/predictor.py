"""What answers in a prediction: a faster copy of the network, or an exported file in its place."""

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from lightning_modules.metrics.accuracies import ranked
from lightning_modules.metrics.temperature import answers_of_views
from lightning_modules.network.inference import for_inference, views
from lightning_modules.network.packed_conv import pack_for_cpu

if TYPE_CHECKING:
    from lightning_modules.classifier import ImageClassifier
    from lightning_modules.exports.runtime import Runtime


class Predictor(Protocol):
    """Answers for batches.

    Attributes:
        description: Which runtime answers, on what, and in which precision.
    """

    description: str

    def answers(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns class indices, most probable first, and probabilities, as ``answers_of_views`` does."""
        ...


class NetworkPredictor:
    """A copy of the network with batch norm folded, in the precision of the run.

    A validation does without, so that it repeats the fit's to the last digit.

    Args:
        model: The classifier, which is left unchanged; its ``tta`` and temperature apply.
    """

    def __init__(self, model: "ImageClassifier") -> None:
        weights, precision = model.network.fc.weight, str(model.trainer.precision)
        self._network = for_inference(model.network, torch.bfloat16 if precision == "bf16-mixed" else weights.dtype)
        pack_for_cpu(self._network)
        self._tta: str = model.hparams["tta"]
        self._temperature = model.temperature
        self.description = f"PyTorch {torch.__version__}, {_device_name(weights.device)}, {precision}"

    def answers(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Takes normalised images ``(batch, 3, height, width)``."""
        images = images.to(self._network.conv1.weight.dtype)
        return answers_of_views([self._network(view).float() for view in views(images, self._tta)], self._temperature)


class FilePredictor:
    """An exported file, which holds normalisation, views and temperature.

    Args:
        runtime: The opened file.
    """

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        self.description = runtime.description

    def answers(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Takes images as they were loaded: uint8 ``(batch, 3, height, width)``."""
        pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
        probabilities = torch.from_numpy(self._runtime.probabilities(pixels))
        return ranked(probabilities)[1], probabilities


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return on_cpu(torch.get_num_threads()) if device.type == "cpu" else device.type


def on_cpu(threads: int) -> str:
    """Says on how many threads of the CPU a runtime computes.

    >>> on_cpu(2)
    'CPU, 2 threads'
    """
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"
