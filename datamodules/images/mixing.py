"""MixUp and CutMix: each image of a batch is mixed with the one before it, the first with the last, labels too."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Mix(NamedTuple):
    """How a batch is mixed, in numbers that the host knows.

    Attributes:
        share: Share of the image itself in the result, 0 to 1; the image before it has the rest.
        box: Left, top, right and bottom, in pixels, of what is cut out of the image before it (CutMix); None if the two
            are blended (MixUp).
    """

    share: float
    box: tuple[int, int, int, int] | None = None

    def mix(self, images: Tensor) -> Tensor:
        """Mixes images ``(batch, channels, height, width)`` of floats in place, and returns them.

        Example:
            >>> Mix(0.75).mix(torch.tensor([0.0, 8.0]).view(2, 1, 1, 1)).flatten()
            tensor([2., 6.])
        """
        if self.box is None:
            return images.lerp_(_before(images), 1 - self.share)
        left, top, right, bottom = self.box
        window = images[..., top:bottom, left:right]
        window.copy_(_before(window))
        return images

    def soft_targets(self, targets: Tensor, num_classes: int) -> Tensor:
        """Returns the class probabilities ``(batch, classes)`` of mixed images whose own classes are ``(batch,)``.

        Example:
            >>> Mix(0.75).soft_targets(torch.tensor([0, 2]), 3)
            tensor([[0.7500, 0.0000, 0.2500],
                    [0.2500, 0.0000, 0.7500]])
        """
        # Not one_hot or a scatter, which wait for the host or have no deterministic kernel on a GPU.
        own = (targets[:, None] == torch.arange(num_classes, device=targets.device)).float()
        return own.lerp(_before(own), 1 - self.share)

    def heavier(self, targets: Tensor) -> Tensor:
        """Returns the class ``(batch,)`` that has the larger share of each image."""
        return targets if self.share >= 0.5 else _before(targets)


def draw_mix(seed: int, side: int, *, mixup_alpha: float, cutmix_alpha: float, probability: float) -> Mix | None:
    """Draws how a batch is mixed; None if it is not.

    Sources: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, arXiv 1710.09412; Yun et al.,
    "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019, arXiv
    1905.04899. As in the latter's own program, a box that reaches beyond the image is clipped, and the share is that of
    the pixels.

    Args:
        seed: Seed of the batch.
        side: Side of the images in pixels.
        mixup_alpha: MixUp's share is drawn from Beta(alpha, alpha); 0 for no MixUp.
        cutmix_alpha: The same for CutMix. With both, each mixed batch has one of them, with equal probability.
        probability: Probability that the batch is mixed at all.
    """
    if not (mixup_alpha or cutmix_alpha):
        return None
    generator = np.random.default_rng(seed)
    if generator.random() >= probability:
        return None
    cuts = cutmix_alpha > 0 and (mixup_alpha == 0 or generator.random() < 0.5)
    alpha = cutmix_alpha if cuts else mixup_alpha
    share = float(generator.beta(alpha, alpha))
    if not cuts:
        return Mix(share)
    half = int(side * math.sqrt(1 - share) / 2)
    x, y = generator.integers(side, size=2).tolist()
    left, top, right, bottom = max(x - half, 0), max(y - half, 0), min(x + half, side), min(y + half, side)
    return Mix(1 - (right - left) * (bottom - top) / side**2, (left, top, right, bottom))


def _before(values: Tensor) -> Tensor:
    """Moves each value of a batch one place on, the last to the first place."""
    return torch.cat([values[-1:], values[:-1]])  # not torch.roll, which loses channels-last memory on a GPU
