import math

import pytest
import torch

from lightning_modules.metrics.exact_mean import ExactMean


def mean_of(parts):
    metric = ExactMean()
    for part in parts:
        metric.update(part)
    return metric.compute()


def test_equals_the_correctly_rounded_mean():
    values = torch.rand(10_000, generator=torch.Generator().manual_seed(0)) * 20
    assert mean_of([values]).item() == pytest.approx(math.fsum(values.tolist()) / 10_000, rel=1e-7)


def test_order_and_grouping_change_no_bit():
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(999, generator=generator).exp() * 3
    expected = mean_of([values])
    for size in (1, 7, 500):
        shuffled = values[torch.randperm(999, generator=generator)]
        assert torch.equal(mean_of(shuffled.split(size)), expected)


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_what_is_not_finite_shows(odd):
    result = mean_of([torch.tensor([1.0, odd]), torch.tensor([2.0])]).item()
    assert math.isnan(result) if math.isnan(odd) else result == math.inf


def test_nothing_has_no_mean():
    assert mean_of([torch.empty(0)]).isnan()
