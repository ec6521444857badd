import math

import pytest

from scripts.ablation.estimate import estimate


def test_interval_of_three_values():
    # Student's t with 2 degrees of freedom: 4.30265 (any table); the standard error of 1, 2, 3 is 1 / √3
    value = estimate([1.0, 2.0, 3.0])
    assert (value.mean, value.std) == (2.0, 1.0)
    assert value.low == pytest.approx(2 - 4.30265 / math.sqrt(3), abs=1e-5)
    assert value.high == pytest.approx(2 + 4.30265 / math.sqrt(3), abs=1e-5)
    assert value.is_noise


def test_what_is_far_from_zero_is_no_noise():
    assert not estimate([1.0, 1.1, 0.9]).is_noise
    assert not estimate([-1.0, -1.1, -0.9]).is_noise


def test_equal_values_do_not_show_how_they_vary():
    assert estimate([2.0, 2.0]).is_noise


def test_one_value_has_no_interval():
    value = estimate([5.0])
    assert value.mean == 5.0
    assert math.isnan(value.std)
    assert value.is_noise
