"""Convolutions that a matrix product computes faster, on the CPU in bfloat16."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The largest number of output positions (batch · height · width) for which a product was the faster one on 2 cores
# with AVX512-bf16. On small maps oneDNN spends more time on rearranging the weights than on the convolution: 10 times
# as much at 2 × 2 pixels and 512 channels, which is what the last stage sees of an image of 64 pixels.
MOST_POSITIONS = 4096  # of a 1×1 kernel
WEIGHTS_PER_POSITION = 9216  # at least, of a larger one, whose patches have to be copied


class MatmulConv2d(nn.Conv2d):
    """A convolution that, where this is faster, multiplies its input's patches by its weights; else the plain one."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(batch, in_channels, height, width)`` to ``(batch, out_channels, …)``."""
        if x.device.type != "cpu" or x.dtype != torch.bfloat16 or self.groups > 1:
            return super().forward(x)
        kernel, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        batch, _, *sides = x.shape
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in sides)
        most = MOST_POSITIONS if kernel == 1 else self.weight.numel() // WEIGHTS_PER_POSITION
        if batch * height * width > most:
            return super().forward(x)
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
        down, right = (stride * (length - 1) + 1 for length in (height, width))
        shifted = [
            x[:, top : top + down : stride, left : left + right : stride]
            for top in range(kernel)
            for left in range(kernel)
        ]
        patches = torch.stack(shifted, -1).flatten(3) if kernel > 1 else shifted[0]
        # In two dimensions: of four with gaps between the rows, F.linear makes a copy of the weights for each row.
        product = F.linear(patches.flatten(0, 2), self.weight.flatten(1), self.bias)
        return product.view(batch, height, width, -1).permute(0, 3, 1, 2)


def use_matmul_convs(module: nn.Module) -> None:
    """Makes every plain square convolution below ``module`` a ``MatmulConv2d``, in place: names and tensors stay."""
    for child in module.modules():
        if type(child) is nn.Conv2d and len({*child.kernel_size}) == len({*child.stride}) == 1 == child.dilation[0]:
            child.__class__ = MatmulConv2d
