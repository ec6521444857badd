"""The network as it is delivered: from the bytes of an image to class probabilities."""

import torch
from torch import Tensor, nn

from datamodules.images.transforms import MEAN, STD
from lightning_modules.classifier import ImageClassifier
from lightning_modules.metrics.temperature import probabilities_of_views
from lightning_modules.network.inference import for_inference, views


class DeliveredNetwork(nn.Module):
    """Computes in float32 what ``cbam100 predict`` does with a batch of resized images.

    Args:
        model: The trained classifier, which is left unchanged; its ``tta`` and temperature apply.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: ImageClassifier) -> None:
        super().__init__()
        self.network = for_inference(model.network, torch.float32).float()
        self.tta: str = model.hparams["tta"]
        self.temperature = model.temperature
        # Not datamodules' normalize, which keeps tensors that a trace must not leave behind, and works in place.
        self.register_buffer("mean", 255 * torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(STD).view(1, 3, 1, 1))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Maps uint8 RGB ``(batch, height, width, 3)`` to float32 probabilities ``(batch, classes)``."""
        normalized = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        logits = torch.stack([self.network(view) for view in views(normalized, self.tta)])
        return probabilities_of_views(logits, self.temperature)
