from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.files.errors import UserError
from datamodules.group_balance import spread


def held_by(groups, parts, shares):
    return [
        sum((group for group, own in zip(groups, parts, strict=False) if own == part), Counter())
        for part in range(len(shares))
    ]


def chi_square(groups, parts, shares):
    """The sum of the docstring, from nothing but where the first groups are."""
    totals = sum(groups, Counter())
    held = held_by(groups, parts, shares)
    return sum(
        Fraction(held[part][name] ** 2, totals[name]) / share for part, share in enumerate(shares) for name in totals
    )


def one_after_another(groups, shares):
    parts = []
    for _ in groups:
        sizes = [held.total() / share for held, share in zip(held_by(groups, parts, shares), shares, strict=True)]
        costs = [(chi_square(groups, [*parts, part], shares), sizes[part], part) for part in range(len(shares))]
        parts.append(min(costs)[2])
    return parts


group = st.dictionaries(st.sampled_from("abc"), st.integers(1, 5), min_size=1).map(Counter)
INVERSE_SHARES = [[1, 1], [1, 1, 1], [9, 1], [4, 1]]


@given(groups=st.lists(group, min_size=1, max_size=9), inverse_shares=st.sampled_from(INVERSE_SHARES))
def test_it_is_what_the_definition_says(groups, inverse_shares):
    whole = sum(1 / Fraction(value) for value in inverse_shares)
    shares = [1 / Fraction(value) / whole for value in inverse_shares]
    classes = sorted(set().union(*groups))
    expected = one_after_another(groups, shares)
    held = held_by(groups, expected, shares)
    lacking = [(name, part) for name in classes for part in range(len(shares)) if not held[part][name]]
    try:
        found = spread(groups, inverse_shares)
    except UserError:
        assert lacking
        return
    assert all(part[name] for part in held_by(groups, found, shares) for name in classes)
    moves = [i for i, part in enumerate(found) if part != expected[i]]
    assert len(moves) <= len(lacking)
    if len(moves) == 1:  # into the part that lacks a class; any other one costs as much, or takes a class away
        (move,) = moves
        name, part = lacking[0]
        assert found[move] == part
        for i, other in enumerate(groups):
            if name in other:
                moved = [part if j == i else p for j, p in enumerate(expected)]
                after = held_by(groups, moved, shares)
                bare = any(held[p][c] and not after[p][c] for p in range(len(shares)) for c in classes)
                assert bare or chi_square(groups, found, shares) <= chi_square(groups, moved, shares)


def test_a_class_of_few_groups_is_on_both_sides():
    # Both groups would train, as 1 · 10² + … grows less than 9 · 10²; the second, of 6, is the cheaper one to move.
    assert spread([Counter(cat=10), Counter(cat=6)], [9, 1]) == [1, 0]


def test_classes_that_only_come_together():
    with pytest.raises(
        UserError, match=r"leaves images of class a in each part, .* \(those with b, c\): use finer groups"
    ):
        spread([Counter(a=1, b=1), Counter(b=1, c=1), Counter(a=1, c=1)], [1, 1])
