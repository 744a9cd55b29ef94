"""Histograms add up, keep their error, and survive being written down."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen._histogram import RELATIVE_ERROR, Histogram

seconds = st.floats(1e-8, 1e5) | st.just(0.0)
samples = st.lists(seconds, max_size=200)


def nearest_rank(values: list[float], share: float) -> float:
    return sorted(values)[max(1, math.ceil(round(share * len(values), 9))) - 1]


@given(samples, samples)
def test_merging_is_counting_both(first: list[float], second: list[float]) -> None:
    merged = Histogram.of(first)
    merged.merge(Histogram.of(second))
    assert merged == Histogram.of(first + second)
    assert merged.count == len(first) + len(second)
    assert merged.sum_s == pytest.approx(math.fsum(first + second))


@given(samples, samples, samples)
def test_order_of_merging_does_not_matter(first: list[float], second: list[float], third: list[float]) -> None:
    left, right = Histogram.of(first), Histogram.of(third)
    for other in (second, third):
        left.merge(Histogram.of(other))
    for other in (first, second):
        right.merge(Histogram.of(other))
    assert left == right


@given(st.lists(seconds, min_size=1, max_size=300), st.floats(0, 1))
def test_quantile_is_within_one_percent_of_the_nearest_rank(values: list[float], share: float) -> None:
    exact = nearest_rank(values, share)
    assert Histogram.of(values).quantile(share) == pytest.approx(exact, rel=RELATIVE_ERROR * 1.0001, abs=1e-12)
    assert RELATIVE_ERROR <= 0.01


@given(st.lists(seconds, min_size=1, max_size=200))
def test_quantiles_stay_between_the_ends_and_ascend(values: list[float]) -> None:
    histogram = Histogram.of(values)
    found = [histogram.quantile(share / 10) for share in range(11)]
    assert all(value is not None and min(values) <= value <= max(values) for value in found)
    assert found == sorted(found, key=lambda value: value or 0.0)


@given(samples)
def test_survives_json(values: list[float]) -> None:
    histogram = Histogram.of(values)
    read = Histogram.from_json(json.loads(json.dumps(histogram.to_json())))
    assert (read, read.count, read.sum_s) == (histogram, histogram.count, histogram.sum_s)


@given(st.lists(seconds, min_size=1, max_size=200))
def test_cdf_ascends_to_one(values: list[float]) -> None:
    points = Histogram.of(values).cdf()
    assert points == sorted(points)
    assert points[-1][1] == 1.0


def test_nothing_has_no_quantile_and_no_mean() -> None:
    assert Histogram().quantile(0.5) is None
    assert Histogram().mean_s is None
    assert Histogram().cdf() == []


def test_value_counted_several_times_is_several_values() -> None:
    histogram = Histogram()
    histogram.add(0.5, times=3)
    assert histogram == Histogram.of([0.5, 0.5, 0.5])


def test_clock_that_went_back_counts_as_no_time() -> None:
    assert Histogram.of([-1.0]) == Histogram.of([0.0])


def test_buckets_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="relative error"):
        Histogram.from_json({**Histogram().to_json(), "relative_error": 0.1})
