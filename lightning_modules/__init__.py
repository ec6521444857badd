"""The network, its loss and optimiser, and the LightningModule around them."""

from lightning_modules.attention import CBAM
from lightning_modules.classifier import ImageClassifier
from lightning_modules.focal_loss import FocalLoss, focal_loss
from lightning_modules.model_size import model_size_bytes
from lightning_modules.resnet_cbam import ResNetCBAM

__all__ = ["CBAM", "FocalLoss", "ImageClassifier", "ResNetCBAM", "focal_loss", "model_size_bytes"]
