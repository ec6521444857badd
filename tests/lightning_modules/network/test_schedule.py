import math

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from lightning_modules.network.schedule import WarmRestarts, WarmupCosine, nearest_cycle_ends


def optimizer(*groups):
    """Plain SGD over one number a group, with the group's keys."""
    return SGD([{"params": [nn.Parameter(torch.zeros(1))], **group} for group in groups], lr=1e-3)


def rates(schedule, steps):
    """The rates of each group, step by step."""
    found = []
    for _ in range(steps):
        found.append([group["lr"] for group in schedule.optimizer.param_groups])
        schedule.optimizer.step()
        schedule.step()
    return [list(column) for column in zip(*found, strict=True)]


def test_learning_rate_of_all_70_epochs_equals_the_closed_form():
    (found,) = rates(WarmRestarts(optimizer({}), 10, 2, 1e-5), 70)
    # arXiv 1608.03983, equation 5, over cycles of 10, 20 and 40 epochs
    expected = [
        1e-5 + (1e-3 - 1e-5) / 2 * (1 + math.cos(math.pi * epoch / length))
        for length in (10, 20, 40)
        for epoch in range(length)
    ]
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_single_group_has_torchs_rates_and_state_to_the_bit():
    ours, torchs = (kind(optimizer({}), 3, 2, 1e-5) for kind in (WarmRestarts, CosineAnnealingWarmRestarts))
    assert rates(ours, 40) == rates(torchs, 40)
    assert ours.state_dict() == torchs.state_dict()


def test_a_groups_floor_has_its_ratio_and_its_rate_is_0_while_it_is_frozen():
    trunk = {"lr": 1e-4, "ratio": 0.1, "frozen": 4}
    head, rest = rates(WarmRestarts(optimizer({}, trunk), 3, 2, 1e-5), 9)
    assert rest[:4] == 4 * [0.0]
    assert rest[4:] == pytest.approx([rate * 0.1 for rate in head[4:]], rel=1e-12)


@pytest.mark.parametrize(("steps", "warmup"), [(100, 10), (100, 0), (100, 1), (100, 99), (2, 1), (1, 0)])
def test_one_cosine_with_warm_up_equals_the_closed_form(steps, warmup):
    trunk = {"lr": 2e-4, "ratio": 0.2, "frozen": 3}
    schedule = WarmupCosine(optimizer({}, trunk), steps=steps, warmup_steps=warmup, min_learning_rate=1e-5)
    head, rest = rates(schedule, steps + 2)
    peak = max(warmup - 1, 0)  # the first step at the full rate
    half_a_cosine = [math.cos(math.pi / 2 * step / (steps - 1 - peak)) ** 2 for step in range(1, steps - peak)]
    expected = [1e-3 * (step + 1) / warmup for step in range(peak)] + [1e-3]
    expected += [1e-5 + (1e-3 - 1e-5) * share for share in half_a_cosine]
    assert head[:steps] == pytest.approx(expected, rel=1e-9)
    assert head[peak] == 1e-3
    assert rest[:3] == [0.0] * len(rest[:3])
    assert rest[3:steps] == pytest.approx([0.2 * rate for rate in head[3:steps]], rel=1e-12)
    if steps > 1:
        assert head[steps - 1 :] == 3 * [1e-5]  # exactly, and a run that goes on stays there


@pytest.mark.parametrize(
    ("epochs", "ends"), [(50, [30, 70]), (30, [30]), (70, [70]), (10, [10]), (5, [10]), (11, [10, 30]), (71, [70, 150])]
)
def test_nearest_cycle_ends(epochs, ends):
    assert nearest_cycle_ends(epochs, restart_epochs=10, restart_multiplier=2) == ends
