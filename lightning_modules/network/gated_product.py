"""The product of a feature map with both attention gates, in one pass."""

from typing import Any

import torch
from torch import Tensor


class GatedProduct(torch.autograd.Function):
    """Computes x · channel · spatial for x ``(batch, channels, height, width)`` and factors that broadcast.

    Saves x and the factors for the backward pass; plain multiplications would also save x · channel.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, channel: Tensor, spatial: Tensor) -> Tensor:
        """Multiplies x by factors ``(batch, channels, 1, 1)`` and ``(batch, 1, height, width)``."""
        ctx.save_for_backward(x, channel, spatial)
        product = x * channel
        # An in-place product, compiled by torch 2.11, silently has no gradient.
        return product * spatial if torch.compiler.is_compiling() else product.mul_(spatial)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the three gradients; those of the factors are matrix products, which never store x times a factor."""
        x, channel, spatial = ctx.saved_tensors
        product = rows(grad * x)
        grad_channel = spatial.flatten(1)[:, None] @ product
        grad_spatial = product @ channel.flatten(1)[:, :, None]
        return (grad * spatial).mul_(channel), grad_channel.view_as(channel), grad_spatial.view_as(spatial)


def rows(x: Tensor) -> Tensor:
    """Views ``(batch, channels, height, width)`` in channels-last memory as ``(batch, height · width, channels)``."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)
