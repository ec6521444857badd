"""Convolutions for predictions on a CPU: weights packed once, with bias, ReLU and addition in the same pass.

With plain weights, oneDNN lays them out anew in every call, which takes a fifth of the time of a small batch. The
operators are those that ``torch.compile`` would use; they need no compiler.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from lightning_modules.network.resnet_cbam import STAGES, ResNetCBAM


def pack_for_cpu(network: ResNetCBAM) -> None:
    """Replaces the trunk's convolutions, in place, if they lie on a CPU that oneDNN has kernels for.

    Without gradients only: the operators have none, and blocks overwrite their inputs.

    Args:
        network: Result of ``for_inference``, which computes the same function afterwards.
    """
    if not _is_packable(network.conv1.weight):
        return
    network.conv1, network.relu = PackedConv2d(network.conv1, relu=True), nn.Identity()
    if network.attention_placement != "branch":  # inside a block
        for stage in STAGES:
            blocks = getattr(network, stage)
            setattr(network, stage, nn.Sequential(*map(_PackedBlock, blocks)))


class PackedConv2d(nn.Module):
    """A convolution of images ``(batch, channels, height, width)``, followed by ReLU if asked for.

    Args:
        conv: The convolution, with a bias.
        relu: Whether ReLU follows.
    """

    def __init__(self, conv: nn.Conv2d, *, relu: bool = False) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self._settings = ([*conv.padding], [*conv.stride], [*conv.dilation], conv.groups)
        self._activation = "relu" if relu else "none"
        self._shape = torch.Size()  # of the images that the weights are packed for
        self._packed: Tensor | None = None

    def forward(self, images: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Convolves; with a shortcut, which is overwritten, returns the ReLU of its sum with the result."""
        images = images.to(self.weight.dtype)
        if images.shape != self._shape:  # a run has one or two; weights packed for another are right, but slower
            pack: Any = torch._C._nn.mkldnn_reorder_conv2d_weight  # whose stub lacks the shape
            self._packed = pack(self.weight.data.to_mkldnn(), *self._settings, [*images.shape])
            self._shape = images.shape
        arguments = (images, self._packed, self.bias, *self._settings)
        if shortcut is None:
            return torch.ops.mkldnn._convolution_pointwise(*arguments, self._activation, [], "")
        return torch.ops.mkldnn._convolution_pointwise_.binary(shortcut, *arguments, "add", 1.0, "relu", [], "")


class _PackedBlock(nn.Module):
    """A residual block without batch norm. Without downsampling it overwrites its input, which no hook may keep."""

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        super().__init__()
        *first, last = (getattr(block, name) for name in ("conv1", "conv2", "conv3") if hasattr(block, name))
        self.first = nn.Sequential(*(PackedConv2d(conv, relu=True) for conv in first))
        self.last = PackedConv2d(last)
        self.downsample = nn.Identity() if block.downsample is None else PackedConv2d(block.downsample[0])

    def forward(self, x: Tensor) -> Tensor:
        branch = self.first(x)
        return self.last(branch, self.downsample(x).to(branch.dtype))


def _is_packable(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    has_bfloat16 = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # false without AVX512 or ARM's BF16
    return weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and has_bfloat16)
