"""Overlapping time counts once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.telemetry.spans import Spans

INTERVALS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=30)


def union(intervals: list[tuple[int, int]]) -> int:
    return len({second for start, end in intervals for second in range(start, end)})


def spans(intervals: list[tuple[int, int]]) -> Spans:
    result = Spans()
    for start, end in intervals:
        result.add(start, end)
    return result


@given(INTERVALS)
def test_covered_is_the_length_of_the_union(intervals: list[tuple[int, int]]) -> None:
    assert spans(intervals).covered() == union(intervals)


@given(INTERVALS, INTERVALS)
def test_sum_is_the_union_of_both_and_changes_neither(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> None:
    first, second = spans(one), spans(two)
    assert (first + second).covered() == union(one + two)
    assert (first.covered(), second.covered()) == (union(one), union(two))


def test_memory_is_bounded_and_what_is_folded_still_counts() -> None:
    many = spans([(2 * number, 2 * number + 1) for number in range(5000)])
    assert many.covered() == 5000
    assert len(many._starts) <= 512
