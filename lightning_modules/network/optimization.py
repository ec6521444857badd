"""The optimiser and the learning-rate schedule: AdamW, cosine annealing with warm restarts."""

from collections.abc import Iterable

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts


def build_optimizer(
    parameters: Iterable[nn.Parameter], *, learning_rate: float, weight_decay: float, fused: bool = True
) -> AdamW:
    """AdamW over all parameters in one group, as in the reference recipe: weight decay spares nothing.

    ``fused`` passes over parameter, gradient and both moments in one kernel, on the CPU and on CUDA.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv 1711.05101.
    """
    return AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=fused)


def build_schedule(
    optimizer: Optimizer, *, restart_epochs: int, restart_multiplier: int, min_learning_rate: float
) -> CosineAnnealingWarmRestarts:
    """Cosine annealing with warm restarts, to be stepped once per epoch.

    Source: Loshchilov and Hutter, "SGDR", arXiv 1608.03983, equation 5.

    Args:
        optimizer: Its learning rate is the top of each cycle.
        restart_epochs: Length of the first cycle, T_0.
        restart_multiplier: Each cycle is this many times as long as the one before, T_mult.
        min_learning_rate: Floor of the cosine.
    """
    return CosineAnnealingWarmRestarts(optimizer, restart_epochs, restart_multiplier, min_learning_rate)


def nearest_cycle_ends(epochs: int, *, restart_epochs: int, restart_multiplier: int) -> list[int]:
    """Run lengths at which a cycle ends: ``epochs`` itself, or else the nearest below and above.

    A run that stops elsewhere stops at a high learning rate: 50 epochs of 10 + 20 + 40 end at half the peak.
    """
    below, end, cycle = 0, restart_epochs, restart_epochs
    while end < epochs:
        cycle *= restart_multiplier
        below, end = end, end + cycle
    return [end] if end == epochs or not below else [below, end]
