"""A network made ready to predict: batch norm folded into the convolutions, weights in the precision of the run."""

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lightning_modules.network.resnet_cbam import ResNetCBAM


def for_inference(network: ResNetCBAM, dtype: torch.dtype) -> ResNetCBAM:
    """A copy in evaluation mode that computes the same function with a third of the passes over its activations.

    In evaluation, batch norm is a factor and an offset for each channel, which the convolution before it can carry.
    They are folded in float32 and rounded once. The head stays in float32, so that classes of nearly equal probability
    do not become ties.

    Args:
        network: Is left as it is.
        dtype: Of the weights, and of the images that the copy takes.
    """
    folded = copy.deepcopy(network).eval()
    for module in folded.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                convolution = _name_of_convolution(name)
                setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), child))
                setattr(module, name, nn.Identity())
    folded.fc, head = nn.Identity(), folded.fc  # type: ignore[assignment]
    folded = folded.to(dtype).to(memory_format=torch.channels_last)
    folded.fc = head
    return folded


def _name_of_convolution(name: str) -> str:
    """torchvision's: ``conv2`` goes before ``bn2``, and in a shortcut ``0`` before ``1``."""
    return "0" if name == "1" else name.replace("bn", "conv")
