"""Focal loss for softmax classification, with soft targets, label smoothing and class weights."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

Reduction = Literal["mean", "sum", "none"]


def focal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma: float = 2.0,
    reduction: Reduction = "mean",
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""Computes :math:`\sum_k w_k q_k (1 - p_k)^\gamma (-\log p_k)`, with :math:`p` the softmax of the logits.

    :math:`q` is 1 for the target class and 0 for all others, or the targets' own probabilities. Label smoothing
    :math:`\varepsilon` replaces it by :math:`(1 - \varepsilon) q + \varepsilon / K` over :math:`K` classes.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv 1708.02002, equations 4 and 5, with
    softmax instead of sigmoid; Szegedy et al., arXiv 1512.00567, section 7, for label smoothing. :math:`\gamma = 0` is
    cross-entropy.

    :math:`\log p_k` and :math:`\log (1 - p_k)` are computed as differences of log-sum-exps, or as ``log1p`` of a
    :math:`p_k` that is at most 1/2, so that value and gradient stay finite where a power of :math:`1 - p_k` would not:
    its derivative is infinite at :math:`p_k = 1` for :math:`0 < \gamma < 1`.

    >>> focal_loss(torch.zeros(1, 2), torch.tensor([0]), gamma=1.0)  # 0.5 · log 2
    tensor(0.3466)

    Args:
        logits: ``(batch, classes)`` with at least two classes; computed in at least float32, also inside autocast.
        targets: Class indices ``(batch,)``, or probabilities of the classes ``(batch, classes)``.
        gamma: Focusing exponent, 0 or more.
        reduction: ``mean``, ``sum``, or ``none`` for one loss per image. The mean is over images, whatever their
            weights.
        class_weights: Factor of each class ``(classes,)``.
        label_smoothing: Share of the target that is spread evenly over all classes, at least 0 and below 1.

    Returns:
        A scalar, or ``(batch,)`` for ``none``.

    Raises:
        ValueError: ``gamma`` is negative or not finite, ``label_smoothing`` or ``reduction`` is out of its range,
            ``logits`` is not two-dimensional with at least two classes, or ``targets`` has another shape than above.
    """
    if not (math.isfinite(gamma) and gamma >= 0):
        raise ValueError(f"gamma must be a finite number of at least 0, got {gamma}: the paper uses 2.0")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be at least 0 and below 1, got {label_smoothing}: 0.1 is common")
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"logits must be (batch, classes) with at least 2 classes, got shape {tuple(logits.shape)}")
    if targets.shape not in (logits.shape, logits.shape[:1]):
        raise ValueError(f"targets must be (batch,) or (batch, classes), got shape {tuple(targets.shape)}")
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if targets.ndim == 1 and not label_smoothing:
            losses = _of_labels(logits, targets, gamma)
            if class_weights is not None:
                losses = losses * class_weights[targets]
        else:
            # Not F.one_hot, which looks at the values on the host.
            q = targets if targets.ndim == 2 else torch.zeros_like(logits).scatter(1, targets[:, None], 1.0)
            q = (1 - label_smoothing) * q + label_smoothing / logits.shape[1]
            losses = _of_probabilities(logits, q if class_weights is None else q * class_weights, gamma)
    match reduction:
        case "mean":
            return losses.mean()
        case "sum":
            return losses.sum()
        case "none":
            return losses
    raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def _of_labels(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    column = targets[:, None]
    log_total = logits.logsumexp(1)
    log_p = logits.gather(1, column)[:, 0] - log_total
    log_1mp = logits.scatter(1, column, -math.inf).logsumexp(1) - log_total
    return -torch.exp(gamma * log_1mp) * log_p


def _of_probabilities(logits: Tensor, q: Tensor, gamma: float) -> Tensor:
    log_p = logits.log_softmax(1)
    # Of the most probable class, 1 - p is the sum over all others; p of any other is at most 1/2.
    top = logits.argmax(1, keepdim=True)
    log_others = log_p.scatter(1, top, -math.inf).logsumexp(1, keepdim=True)
    log_1mp = torch.log1p(-log_p.exp().scatter(1, top, 0.0)).scatter(1, top, log_others)
    return -(q * torch.exp(gamma * log_1mp) * log_p).sum(1)


class FocalLoss(nn.Module):
    """Module form of ``focal_loss``, with the same settings."""

    class_weights: Tensor | None

    def __init__(
        self,
        gamma: float = 2.0,
        reduction: Reduction = "mean",
        class_weights: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.gamma = gamma
        self.reduction: Reduction = reduction
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Maps logits ``(batch, classes)`` and targets, as ``focal_loss`` takes them, to the loss."""
        return focal_loss(
            logits,
            targets,
            gamma=self.gamma,
            reduction=self.reduction,
            class_weights=self.class_weights,
            label_smoothing=self.label_smoothing,
        )
