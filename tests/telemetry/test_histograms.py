"""Histograms count what they are given, wherever it falls."""

from __future__ import annotations

import bisect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.telemetry.histogram import Histograms, quantile

BOUNDS = (0.001, 0.01, 0.1, 1.0)
VALUES = st.lists(st.floats(0, 5, allow_nan=False) | st.sampled_from(BOUNDS), max_size=60)
A, B, C = ("a",), ("b",), ("c",)


def filled(labels: list[tuple[str, ...]], values: list[float]) -> Histograms:
    histograms = Histograms(BOUNDS)
    histograms.observe(labels, np.arange(len(labels)), np.array(values))
    return histograms


@given(VALUES)
def test_each_value_falls_into_the_first_bucket_that_is_not_below_it(values: list[float]) -> None:
    expected = [0] * (len(BOUNDS) + 1)
    for value in values:
        expected[bisect.bisect_left(BOUNDS, value)] += 1
    row = filled([A] * len(values), values).rows().get(A)
    assert (row.buckets if row else [0] * 5) == expected
    assert (row.total if row else 0) == pytest.approx(sum(values))


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.floats(0, 5)), max_size=60))
def test_a_batch_counts_like_its_values_one_by_one(pairs: list[tuple[tuple[str, ...], float]]) -> None:
    whole = filled([labels for labels, _ in pairs], [value for _, value in pairs])
    single = Histograms(BOUNDS)
    for labels, value in pairs:
        single.observe([labels], np.array([0]), np.array([value]))
    assert {labels: row.buckets for labels, row in whole.rows().items()} == {
        labels: row.buckets for labels, row in single.rows().items()
    }


def test_labels_without_a_value_get_no_histogram_and_may_come_twice() -> None:
    histograms = Histograms(BOUNDS)
    histograms.observe([A, B, A], np.array([0, 2, 2]), np.array([0.5, 0.5, 0.5]))
    assert {labels: sum(row.buckets) for labels, row in histograms.rows().items()} == {A: 3}


def test_negative_intervals_count_as_zero() -> None:
    row = filled([A], [-0.5]).rows()[A]
    assert row.buckets == [1, 0, 0, 0, 0]
    assert row.total == 0


def test_more_label_sets_than_the_first_array_holds_are_kept_apart() -> None:
    labels = [(str(number),) for number in range(50)]
    rows = filled(labels, [0.05] * 50).rows()
    assert [rows[label].buckets for label in labels] == [[0, 0, 1, 0, 0]] * 50


@given(st.permutations([A, B, C]))
def test_merging_a_row_into_another_loses_nothing_and_leaves_the_others_alone(order: list[tuple[str, ...]]) -> None:
    histograms = filled([A, A, B, C], [0.0005, 0.05, 0.5, 3.0])
    source, target, other = order
    before = histograms.rows()
    histograms.merge(source, target)
    after = histograms.rows()
    assert after.keys() == {target, other}
    assert after[target].buckets == (before[source] + before[target]).buckets
    assert after[target].total == before[source].total + before[target].total
    assert after[other].buckets == before[other].buckets
    histograms.observe([source], np.array([0]), np.array([0.05]))
    assert histograms.rows()[source].buckets == [0, 0, 1, 0, 0]


def test_merging_into_a_new_row_moves_it() -> None:
    histograms = filled([A], [0.05])
    histograms.merge(A, B)
    assert {labels: row.buckets for labels, row in histograms.rows().items()} == {B: [0, 0, 1, 0, 0]}


def test_exemplar_is_the_last_request_of_its_bucket() -> None:
    histograms = Histograms(BOUNDS)
    histograms.observe([A], np.array([0, 0, 0]), np.array([0.05, 0.06, 3.0]), ["first", "second", "slow"])
    exemplars = histograms.rows()[A].exemplars
    assert {bucket: exemplar.request_id for bucket, exemplar in exemplars.items()} == {2: "second", 4: "slow"}


def test_rows_are_copies() -> None:
    histograms = filled([A], [0.05])
    row = histograms.rows()[A]
    histograms.observe([A], np.array([0]), np.array([0.05]))
    assert sum(row.buckets) == 1


@given(st.lists(st.floats(0.002, 0.9), min_size=1, max_size=200), st.sampled_from([0.5, 0.95]))
def test_quantile_is_within_a_tenth_of_the_true_order_statistic(values: list[float], q: float) -> None:
    histograms = filled([A] * len(values), values)
    found = quantile(histograms.edges, histograms.rows()[A].counts, q)
    true = sorted(values)[max(0, int(np.ceil(q * len(values))) - 1)]
    width = 10 ** (1 / 8)  # of an inner bucket: a decade in eight steps
    assert found is not None
    assert true / width <= found <= true * width


def test_quantile_of_nothing_is_unknown_and_beyond_the_last_bound_is_the_bound() -> None:
    histograms = filled([A], [30.0])
    assert quantile(histograms.edges, np.zeros(33, np.int64), 0.5) is None
    assert quantile(histograms.edges, histograms.rows()[A].counts, 0.5) == 1.0
