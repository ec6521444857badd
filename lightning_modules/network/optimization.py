"""The optimiser and the learning-rate schedule: AdamW, cosine annealing with warm restarts."""

from collections.abc import Iterable

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts


def build_optimizer(
    parameters: Iterable[nn.Parameter], *, learning_rate: float, weight_decay: float, fused: bool = True
) -> AdamW:
    """Builds AdamW over all parameters in one group: as in the reference recipe, weight decay applies to all of them.

    With ``fused``, one kernel updates parameter and both moments, on the CPU and on CUDA.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv 1711.05101.
    """
    return AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=fused)


def build_schedule(
    optimizer: Optimizer, *, restart_epochs: int, restart_multiplier: int, min_learning_rate: float
) -> CosineAnnealingWarmRestarts:
    """Builds cosine annealing with warm restarts, to be stepped once per epoch.

    Source: Loshchilov and Hutter, "SGDR", arXiv 1608.03983, equation 5.

    Args:
        optimizer: Optimiser whose learning rate is the start of each cycle.
        restart_epochs: Length of the first cycle in epochs, T_0.
        restart_multiplier: Length of each cycle as a multiple of the previous one's, T_mult.
        min_learning_rate: Learning rate at the end of each cycle.
    """
    return CosineAnnealingWarmRestarts(optimizer, restart_epochs, restart_multiplier, min_learning_rate)


def nearest_cycle_ends(epochs: int, *, restart_epochs: int, restart_multiplier: int) -> list[int]:
    """Returns the epochs at which a cycle ends: ``epochs`` itself, or else the nearest below and above.

    A run that stops elsewhere stops at a high learning rate, here at half the peak.

    >>> nearest_cycle_ends(50, restart_epochs=10, restart_multiplier=2)  # 10 + 20, and 10 + 20 + 40
    [30, 70]
    """
    below, end, cycle = 0, restart_epochs, restart_epochs
    while end < epochs:
        cycle *= restart_multiplier
        below, end = end, end + cycle
    return [end] if end == epochs or not below else [below, end]
