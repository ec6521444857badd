"""The network, its loss, metrics and optimiser, and the LightningModule that trains it."""

from lightning_modules.classifier import ImageClassifier
from lightning_modules.network.attention import CBAM
from lightning_modules.network.focal_loss import FocalLoss, focal_loss
from lightning_modules.network.model_size import model_size_bytes
from lightning_modules.network.resnet_cbam import ResNetCBAM

__all__ = ["CBAM", "FocalLoss", "ImageClassifier", "ResNetCBAM", "focal_loss", "model_size_bytes"]
