"""Ranks and the Pareto front."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.efficiency.figure import Better
from server.efficiency.ranks import front, ranks

VALUES = st.lists(st.one_of(st.none(), st.integers(-5, 5).map(float)), max_size=8)


@pytest.mark.parametrize(
    ("values", "better", "expected"),
    [
        ([3.0, 1.0, 2.0], Better.LOWER, [3, 1, 2]),
        ([3.0, 1.0, 2.0], Better.HIGHER, [1, 3, 2]),
        ([2.0, 1.0, 1.0, 3.0], Better.LOWER, [3, 1, 1, 4]),
        ([None, 1.0, None, 0.0], Better.HIGHER, [None, 1, None, 2]),
        ([0.1 + 0.2, 0.3], Better.LOWER, [1, 1]),
        ([10.01, 10.04, 10.06], Better.LOWER, [1, 1, 3]),  # 10.0, 10.0, 10.1
        ([1.0, 2.0], None, [None, None]),
        ([], Better.LOWER, []),
        ([None], Better.LOWER, [None]),
    ],
)
def test_one_is_best_equals_share_and_unknown_has_none(
    values: list[float | None], better: Better | None, expected: list[int | None]
) -> None:
    assert ranks(values, better) == expected


@given(VALUES, st.sampled_from(list(Better)))
def test_a_rank_is_one_more_than_how_many_are_better(values: list[float | None], better: Better) -> None:
    known = [value for value in values if value is not None]
    for value, rank in zip(values, ranks(values, better), strict=True):
        if value is None:
            assert rank is None
        else:
            ahead = [other for other in known if (other < value if better is Better.LOWER else other > value)]
            assert rank == 1 + len(ahead)


def row(joules: float | None, itl_s: float | None, quality: float | None = None) -> dict[str, float | None]:
    return {"output_token_j": joules, "itl_p95_s": itl_s, "quality_ratio": quality}


def test_who_is_worse_in_everything_is_not_on_the_front() -> None:
    found = front([row(1, 3), row(3, 1), row(3, 3), row(2, 2)])
    assert list(found.on_it) == [True, True, False, True]
    assert found.axes == ("output_token_j", "itl_p95_s")


def test_quality_can_keep_a_costly_one_on_the_front() -> None:
    assert list(front([row(1, 1, 0.9), row(2, 2, 1.0)]).on_it) == [True, True]
    assert list(front([row(1, 1, 1.0), row(2, 2, 1.0)]).on_it) == [True, False]


def test_quality_that_one_row_lacks_is_no_axis() -> None:
    found = front([row(1, 1, 0.9), row(2, 2)])
    assert (found.axes, list(found.on_it)) == (("output_token_j", "itl_p95_s"), [True, False])


def test_rows_without_joules_or_latency_are_not_compared() -> None:
    found = front([row(None, 1, 1.0), row(1, None, 1.0), row(5, 5, 1.0)])
    assert list(found.on_it) == [None, None, True]
    assert front([row(None, None)]).axes == ()
    assert list(front([]).on_it) == []


def test_equals_stand_together() -> None:
    assert list(front([row(1, 1), row(1, 1), row(1, 2)]).on_it) == [True, True, False]


@given(st.lists(st.tuples(*[st.integers(0, 4).map(float)] * 3), min_size=1, max_size=8))
def test_somebody_is_always_on_the_front_and_the_best_of_each_axis_too(points: list[tuple[float, ...]]) -> None:
    on_it = front([row(*point) for point in points]).on_it
    assert any(on_it)
    best = min(points)
    assert on_it[points.index(best)] or any(on_it[place] for place, point in enumerate(points) if point[0] == best[0])
