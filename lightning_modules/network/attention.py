"""Lean CBAM: a channel gate, then a spatial gate.

::

    x ──┬─────────────────────────────────────────────▶ × ──┬──────────────────────────────▶ × ──▶ y
        └▶ mean over (H, W) ▶ reduce ▶ ReLU ▶ expand ▶ g ▶ ─┘└▶ mean over C ▶ conv k×k ▶ g ▶ ─┘

Source: Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018, arXiv 1807.06521, equations 1 to 3. Differs
from the paper in three ways: both gates use the average only, not average and maximum; the two channel layers have no
bias and a reduction ratio of 128 instead of 16; the spatial convolution is 3×3 over one map instead of 7×7 over two,
without batch norm. After the four stages of a ResNet50 it adds 87,080 parameters; the paper's, in every block, adds 2.5
million.

The cost of a gate is memory traffic, not arithmetic, so x is read three times: for the means over positions, for the
means over channels of x times the channel gate, and for the product with both gates. Neither x times the channel gate
alone nor its gradient is ever stored. The means are matrix-vector products, which have the fastest kernels and a
deterministic CUDA backward, unlike ``AdaptiveAvgPool2d``.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_modules.network.gated_product import GatedProduct, rows

Gate = Literal["sigmoid", "identity"]


def _gate_factors(logits: Tensor, gate: Gate) -> Tensor:
    """Maps logits to factors: in (0, 1) for ``sigmoid``; in (0, 2), and exactly 1 at zero, for ``identity``."""
    factors = torch.sigmoid(logits)
    return 2 * factors if gate == "identity" else factors


class ChannelGate(nn.Module):
    """Computes one factor per image and channel: mean over positions → two-layer bottleneck without bias → gate.

    Args:
        channels: Number of input channels.
        reduction_ratio: ``channels`` divided by the width of the bottleneck, which is at least 1.
        gate: ``sigmoid`` (factor about 0.5 at initialisation) or ``identity`` (factor exactly 1).
    """

    def __init__(self, channels: int, reduction_ratio: int = 128, gate: Gate = "sigmoid") -> None:
        super().__init__()
        self.gate = gate
        hidden = max(1, channels // reduction_ratio)
        self.reduce = nn.Linear(channels, hidden, bias=False)
        self.expand = nn.Linear(hidden, channels, bias=False)
        if gate == "identity":
            nn.init.zeros_(self.expand.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(batch, channels, height, width)`` to factors ``(batch, channels, 1, 1)``."""
        positions = x.shape[2] * x.shape[3]
        # A power of two near 1 / positions is exact in every precision, and keeps float16 from overflowing.
        share = 0.5 ** positions.bit_length()
        mean = (x.new_full((x.shape[0], 1, positions), share) @ rows(x))[:, 0] / (positions * share)
        logits = self.expand(torch.relu(self.reduce(mean)))
        return _gate_factors(logits, self.gate)[:, :, None, None]


class SpatialGate(nn.Module):
    """Computes one factor per image and position: mean over channels → one convolution → gate.

    Args:
        kernel_size: Side of the convolution kernel; odd, so that the map keeps its size.
        gate: As in ``ChannelGate``.
    """

    def __init__(self, kernel_size: int = 3, gate: Gate = "sigmoid") -> None:
        super().__init__()
        self.gate = gate
        self.conv = nn.Conv2d(1, 1, kernel_size, padding=kernel_size // 2)
        if gate == "identity":
            nn.init.zeros_(self.conv.weight)
            nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, channel: Tensor) -> Tensor:
        """Maps x ``(batch, channels, height, width)``, times the channel factors, to ``(batch, 1, height, width)``."""
        batch, channels, height, width = x.shape
        mean = rows(x) @ channel.flatten(1)[:, :, None] / channels
        return _gate_factors(self.conv(mean.view(batch, 1, height, width)), self.gate)


class CBAM(nn.Module):
    """Multiplies its input by a channel gate and the result by a spatial gate.

    Sigmoid gates start near 0.5, so the module starts as a factor of about 0.25. For pretrained weights choose
    ``identity``, which starts as the identity function.

    >>> CBAM(channels=256)(torch.zeros(2, 256, 7, 7)).shape
    torch.Size([2, 256, 7, 7])

    Args:
        channels: Number of input channels.
        reduction_ratio: See ``ChannelGate``.
        kernel_size: See ``SpatialGate``.
        gate: ``sigmoid`` or ``identity``.

    Raises:
        ValueError: ``kernel_size`` is even, a size is below 1, or ``gate`` is neither of the two.
    """

    def __init__(self, channels: int, reduction_ratio: int = 128, kernel_size: int = 3, gate: Gate = "sigmoid") -> None:
        super().__init__()
        if reduction_ratio < 1:
            raise ValueError(f"reduction_ratio must be at least 1, got {reduction_ratio}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"the spatial kernel size must be odd and positive, got {kernel_size}: try 3, 5 or 7")
        if gate not in ("sigmoid", "identity"):
            raise ValueError(f"gate must be 'sigmoid' or 'identity', got {gate!r}")
        self.channel_gate = ChannelGate(channels, reduction_ratio, gate)
        self.spatial_gate = SpatialGate(kernel_size, gate)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(batch, channels, height, width)`` to the same shape."""
        channel = self.channel_gate(x)
        spatial = self.spatial_gate(x, channel)
        return GatedProduct.apply(x, channel.to(x.dtype), spatial.to(x.dtype))
