"""Learning-rate schedules: cosine annealing with warm restarts, and one cosine with warm-up over the whole run.

Both know an optimiser's groups: a group's floor is the minimum times its ``ratio``, and its rate is 0 for the first
``frozen`` steps of the schedule. AdamW multiplies weight decay by the rate, so that nothing of a frozen group moves.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LRScheduler
from typing_extensions import override

Schedule = Literal["warm_restarts", "cosine"]


def _rates(schedule: LRScheduler, minimum: float, rate: Callable[[float, float], float]) -> list[float]:
    """Returns the rate of each group, of which ``rate`` knows the peak and the floor."""
    groups: Any = zip(schedule.optimizer.param_groups, schedule.base_lrs, strict=False)
    return [
        rate(peak, minimum * group.get("ratio", 1.0)) if schedule.last_epoch >= group.get("frozen", 0) else 0.0
        for group, peak in groups
    ]


def _annealed(peak: float, floor: float, angle: float) -> float:
    return floor + (peak - floor) * (1 + math.cos(angle)) / 2


class WarmRestarts(CosineAnnealingWarmRestarts):
    """Cosine annealing with warm restarts, to be stepped once per epoch: torch's, to the bit where all learn alike.

    Source: Loshchilov and Hutter, "SGDR", arXiv 1608.03983, equation 5.
    """

    @override
    def get_lr(self) -> list[Any]:
        angle = math.pi * self.T_cur / self.T_i
        return _rates(self, self.eta_min, lambda peak, floor: _annealed(peak, floor, angle))


class WarmupCosine(LRScheduler):
    """Linear warm-up and half a cosine, to be stepped once per optimiser step.

    Step t of T has the rate peak · (t + 1) / W while t < W; from the first step at the peak, which is step W - 1, or 0
    without warm-up, half a cosine leads to the floor, reached at step T - 1.

    Sources: Goyal et al., "Accurate, Large Minibatch SGD", arXiv 1706.02677, section 2.2 (gradual warm-up); Loshchilov
    and Hutter, "SGDR", arXiv 1608.03983, equation 5 (with one cycle).

    Args:
        optimizer: Optimiser whose learning rates are the peaks.
        steps: Number of the run's steps, T.
        warmup_steps: Number of steps of the warm-up, W, less than ``steps``.
        min_learning_rate: Learning rate of the last step where a group's ratio is 1.
    """

    def __init__(self, optimizer: Optimizer, *, steps: int, warmup_steps: int, min_learning_rate: float) -> None:
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.min_learning_rate = min_learning_rate
        super().__init__(optimizer)

    @override
    def get_lr(self) -> list[Any]:
        if self.last_epoch < self.warmup_steps:
            share = (self.last_epoch + 1) / self.warmup_steps
            return _rates(self, self.min_learning_rate, lambda peak, floor: peak * share)
        first = max(self.warmup_steps - 1, 0)  # step at the peak
        done = min((self.last_epoch - first) / max(self.steps - 1 - first, 1), 1.0)
        return _rates(self, self.min_learning_rate, lambda peak, floor: _annealed(peak, floor, math.pi * done))


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
