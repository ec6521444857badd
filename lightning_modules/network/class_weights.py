"""Weights of classes in the loss, from the numbers of their training images."""

import math
from typing import Literal

import torch
from torch import Tensor

ClassWeighting = Literal["none", "balanced", "effective"]
BETA = 0.999  # Cui et al. try 0.9 to 0.9999, and find that the best depends on the data


def class_weights(counts: Tensor, weighting: Literal["balanced", "effective"]) -> Tensor:
    r"""Computes weights whose mean over training images is 1, and that are 0 for a class without images.

    ``balanced`` is proportional to :math:`1 / n` for a class of :math:`n` images: each class counts alike.
    ``effective`` is proportional to :math:`(1 - \beta) / (1 - \beta^n)` with :math:`\beta = 0.999`, which levels off
    for classes of more than about a thousand images.

    Source: Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019, arXiv 1901.05555,
    proposition 1. Differs from the paper in the mean, which there is over classes.

    >>> class_weights(torch.tensor([1, 3]), "balanced")  # the mean of 2 once and 2/3 three times is 1
    tensor([2.0000, 0.6667])

    Args:
        counts: Numbers of training images ``(classes,)``, on the CPU, not all 0.
        weighting: ``balanced`` or ``effective``.

    Returns:
        float32 ``(classes,)``.
    """
    n = counts.double()
    # 1 - β^n is exact for few images in this form.
    number = n if weighting == "balanced" else -torch.expm1(n * math.log(BETA)) / (1 - BETA)
    weights = torch.where(n > 0, 1 / number.clamp(min=1), 0)
    return (weights * n.sum() / (weights * n).sum()).float()
