"""The catalogue keeps its own rules."""

from __future__ import annotations

import itertools

import pytest

from server.telemetry import CATALOGUE, Metric
from server.telemetry.metric import Kind

METRICS = pytest.mark.parametrize("metric", CATALOGUE.values(), ids=CATALOGUE)


@METRICS
def test_name_has_the_prefix_and_no_colon_and_counters_alone_end_in_total(metric: Metric) -> None:
    assert metric.name.startswith("wattgate_")
    assert ":" not in metric.name
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert metric.name.endswith("_info") == (metric.kind is Kind.INFO)


@METRICS
def test_help_is_a_sentence(metric: Metric) -> None:
    assert metric.help[0].isupper() or metric.help[0].isdigit()
    assert metric.help.endswith(".")


@METRICS
def test_buckets_belong_to_histograms_and_rise(metric: Metric) -> None:
    assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
    assert all(low < high for low, high in itertools.pairwise((0.0, *metric.buckets)))


@METRICS
def test_tenant_stands_on_counters_only_and_a_request_id_nowhere(metric: Metric) -> None:
    if "tenant" in metric.labels:
        assert metric.kind is Kind.COUNTER
    assert not {"id", "request", "request_id"} & set(metric.labels)


def test_buckets_reach_down_to_what_small_models_and_the_gateway_need() -> None:
    assert CATALOGUE["wattgate_time_to_first_token_seconds"].buckets[0] == 0.001
    assert CATALOGUE["wattgate_inter_token_latency_seconds"].buckets[0] == 0.0005
    assert sum(bound < 0.001 for bound in CATALOGUE["wattgate_overhead_seconds"].buckets) >= 4
