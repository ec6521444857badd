"""Convolutions computed as matrix products where that is faster: on the CPU, in bfloat16, on small feature maps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The largest number of output positions (batch · height · width) at which a product was faster, on 2 cores with
# AVX512-bf16. On small maps oneDNN spends more time rearranging the weights than convolving: 10 times as much at 2 × 2
# pixels and 512 channels, which is what the last stage sees of a 64-pixel image.
MOST_POSITIONS = 4096  # for a 1×1 kernel
WEIGHTS_PER_POSITION = 9216  # at least, for a larger kernel, whose patches have to be copied


class MatmulConv2d(nn.Conv2d):
    """A convolution that multiplies its input's patches by its weights where that is faster than torch's kernel."""

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
        # In two dimensions: given four with gaps between the rows, F.linear copies the weights for each row.
        product = F.linear(patches.flatten(0, 2), self.weight.flatten(1), self.bias)
        return product.view(batch, height, width, -1).permute(0, 3, 1, 2)


def use_matmul_convs(module: nn.Module) -> None:
    """Turns every plain square convolution in ``module`` into a ``MatmulConv2d``, in place: names and tensors stay.

    Convolutions of a single channel, such as those of spatial gates, gain nothing and are left alone.

    >>> use_matmul_convs(layer := nn.Conv2d(8, 8, 3))
    >>> layer.__class__.__name__
    'MatmulConv2d'
    """
    for child in module.modules():
        if type(child) is not nn.Conv2d or child.in_channels == 1:
            continue
        if len({*child.kernel_size}) == len({*child.stride}) == 1 == child.dilation[0]:
            child.__class__ = MatmulConv2d
