import math

import pytest
import torch
from torch import nn

from lightning_modules.network.optimization import build_optimizer, build_schedule, nearest_cycle_ends


def test_learning_rate_of_all_70_epochs_equals_the_closed_form():
    optimizer = build_optimizer([nn.Parameter(torch.zeros(1))], learning_rate=1e-3, weight_decay=1e-4)
    schedule = build_schedule(optimizer, restart_epochs=10, restart_multiplier=2, min_learning_rate=1e-5)
    # arXiv 1608.03983, equation 5, over cycles of 10, 20 and 40 epochs
    expected = [
        1e-5 + (1e-3 - 1e-5) / 2 * (1 + math.cos(math.pi * epoch / length))
        for length in (10, 20, 40)
        for epoch in range(length)
    ]
    rates = []
    for _ in range(70):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx(expected, rel=1e-12)


def test_one_step_equals_adamw_by_hand():
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = build_optimizer([weight], learning_rate=0.1, weight_decay=0.5)
    (3 * weight).sum().backward()
    optimizer.step()
    # Decay first: 2 · (1 - 0.1 · 0.5); then the first step of Adam is the learning rate times the gradient's sign.
    assert weight.item() == pytest.approx(2.0 * 0.95 - 0.1 * 3 / (3 + 1e-8), rel=1e-12)


@pytest.mark.parametrize(
    ("epochs", "ends"), [(50, [30, 70]), (30, [30]), (70, [70]), (10, [10]), (5, [10]), (11, [10, 30]), (71, [70, 150])]
)
def test_nearest_cycle_ends(epochs, ends):
    assert nearest_cycle_ends(epochs, restart_epochs=10, restart_multiplier=2) == ends
