from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from lightning_modules.metrics.proportions import mcnemar_p_value, wilson_interval


@given(st.integers(1, 5000).flatmap(lambda images: st.tuples(st.integers(0, images), st.just(images))))
def test_the_interval_is_that_of_scipy(counts):
    expected = binomtest(*counts).proportion_ci(0.95, method="wilson")
    assert wilson_interval(*counts) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_adds_up_the_binomial_distribution(first, second):
    n, least = first + second, min(first, second)
    tail = Fraction(sum(comb(n, k) for k in range(least + 1)), 2**n)
    assert mcnemar_p_value(first, second) == pytest.approx(float(min(1, 2 * tail)), rel=1e-9)
