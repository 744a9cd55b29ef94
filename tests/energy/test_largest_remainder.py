"""Splitting an integer loses no unit and is nowhere off by one or more."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.energy.attribution import rounding

WEIGHTS = st.lists(st.integers(0, 10**12), min_size=1, max_size=20).filter(any)
TOTALS = st.integers(0, 10**18)


def split(total: int, weights: list[int]) -> list[int]:
    return rounding.split(total, np.array(weights, np.int64)).tolist()


@given(TOTALS, WEIGHTS)
def test_parts_add_up_and_each_is_within_one_of_its_exact_share(total: int, weights: list[int]) -> None:
    parts = split(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - Fraction(total * weight, sum(weights))) < 1


@given(TOTALS, WEIGHTS)
def test_nothing_goes_to_a_weight_of_zero_and_more_never_to_a_smaller_weight(total: int, weights: list[int]) -> None:
    pairs = sorted(zip(weights, split(total, weights), strict=True))
    assert all(part == 0 for weight, part in pairs if weight == 0)
    assert all(low[1] <= high[1] + (low[0] == high[0]) for low, high in itertools.pairwise(pairs))


def test_units_left_go_to_the_largest_fractions_then_to_the_first() -> None:
    assert split(10, [1, 1, 1]) == [4, 3, 3]
    assert split(100, [335, 334, 331]) == [34, 33, 33]
    assert split(7, [2, 5, 3]) == [1, 4, 2]


@pytest.mark.parametrize(("total", "weights"), [(1, []), (1, [0, 0]), (-1, [1]), (1, [2, -1])])
def test_what_cannot_be_split_is_refused(total: int, weights: list[int]) -> None:
    with pytest.raises(ValueError, match="not negative"):
        split(total, weights)
