"""Focal loss for softmax classification."""

import math
from typing import Literal

import torch
from torch import Tensor, nn


def focal_loss(
    logits: Tensor, targets: Tensor, *, gamma: float = 2.0, reduction: Literal["mean", "sum", "none"] = "mean"
) -> Tensor:
    r"""Computes :math:`-(1 - p_t)^\gamma \log p_t`, with :math:`p_t` the softmax probability of the target class.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv 1708.02002, equation 4, with softmax
    instead of sigmoid. :math:`\gamma = 0` is cross-entropy.

    :math:`\log p_t` and :math:`\log (1 - p_t)` are computed as differences of log-sum-exps, so that value and gradient
    stay finite where a power of :math:`1 - p_t` would not: its derivative is infinite at :math:`p_t = 1` for
    :math:`0 < \gamma < 1`.

    >>> focal_loss(torch.zeros(1, 2), torch.tensor([0]), gamma=1.0)  # 0.5 · log 2
    tensor(0.3466)

    Args:
        logits: ``(batch, classes)`` with at least two classes; computed in at least float32, also inside autocast.
        targets: Class indices ``(batch,)``.
        gamma: Focusing exponent, 0 or more.
        reduction: ``mean``, ``sum``, or ``none`` for one loss per image.

    Returns:
        A scalar, or ``(batch,)`` for ``none``.

    Raises:
        ValueError: ``gamma`` is negative or not finite, ``reduction`` is unknown, or ``logits`` is not two-dimensional
            with at least two classes.
    """
    if not (math.isfinite(gamma) and gamma >= 0):
        raise ValueError(f"gamma must be a finite number of at least 0, got {gamma}: the paper uses 2.0")
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"logits must be (batch, classes) with at least 2 classes, got shape {tuple(logits.shape)}")
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        column = targets[:, None]
        log_total = logits.logsumexp(1)
        log_p = logits.gather(1, column)[:, 0] - log_total
        log_1mp = logits.scatter(1, column, -math.inf).logsumexp(1) - log_total
        losses = -torch.exp(gamma * log_1mp) * log_p
    match reduction:
        case "mean":
            return losses.mean()
        case "sum":
            return losses.sum()
        case "none":
            return losses
    raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


class FocalLoss(nn.Module):
    """Module form of ``focal_loss``, with the same settings."""

    def __init__(self, gamma: float = 2.0, reduction: Literal["mean", "sum", "none"] = "mean") -> None:
        super().__init__()
        self.gamma = gamma
        self.reduction = reduction

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Maps logits ``(batch, classes)`` and class indices ``(batch,)`` to the loss."""
        return focal_loss(logits, targets, gamma=self.gamma, reduction=self.reduction)
