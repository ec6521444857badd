"""A copy of a network that predicts faster: batch norm folded into convolutions, weights in the run's precision."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lightning_modules.network.resnet_cbam import ResNetCBAM


def for_inference(network: ResNetCBAM, dtype: torch.dtype) -> ResNetCBAM:
    """Returns a copy in evaluation mode that computes the same function with a third of the passes over activations.

    In evaluation, batch norm is one factor and one offset per channel, which the preceding convolution can absorb. They
    are folded in float32 and rounded once. The head stays in float32, so that classes of nearly equal probability do
    not tie.

    Args:
        network: The trained network, which is left unchanged.
        dtype: Type of the copy's weights and of the images it takes.
    """
    folded = copy.deepcopy(network).eval()
    for module in folded.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                # torchvision puts conv2 before bn2, and in a shortcut 0 before 1.
                convolution = "0" if name == "1" else name.replace("bn", "conv")
                setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), child))
                setattr(module, name, nn.Identity())
    folded.fc, head = nn.Identity(), folded.fc  # type: ignore[assignment]
    folded = folded.to(dtype).to(memory_format=torch.channels_last)
    folded.fc = head
    return folded


def views(images: Tensor, tta: str) -> list[Tensor]:
    """Returns images ``(batch, 3, height, width)`` as test-time augmentation shows them: with hflip, mirrored too.

    >>> [view.tolist() for view in views(torch.tensor([[[[1, 2]]]]), "hflip")]
    [[[[[1, 2]]]], [[[[2, 1]]]]]
    """
    return [images, images.flip(3)] if tta == "hflip" else [images]
