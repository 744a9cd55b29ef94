"""Every query of every dashboard, evaluated by a real Prometheus on known counters."""

from __future__ import annotations

import pytest

from grafana import queries
from grafana.boards import BOARDS
from grafana.generate import render
from grafana.queries import Query
from tests.fakes.prometheus import Prometheus, grafana_queries, has_number

RATE_INTERVAL = "2s"
ROUNDS = 10
"""On a busy machine a scrape fails now and then, and everything is stale until the next."""


def test_every_query_of_every_panel_returns_data(prometheus: Prometheus) -> None:
    open_ = [
        (f"{name}: {title}", promql)
        for name, board in BOARDS.items()
        for title, promql in grafana_queries(render(board), rate_interval=RATE_INTERVAL)
    ]
    assert open_
    for _ in range(ROUNDS):
        open_ = [one for one in open_ if not has_number(prometheus.query(one[1]))]
        if not open_:
            break
        prometheus.wait_for("count_over_time(wattgate_device_energy_joules_total[2s]) >= 5")
    assert open_ == []


def values(prometheus: Prometheus, query: Query, label: str, *, at: float | None = None) -> dict[str, float]:
    """The query's result by one label, everything selected."""
    variables = [
        {"type": "custom", "name": name, "allValue": queries.ALL_VALUE}
        for name in ("model", "variant", "adapter", "engine")
    ]
    dashboard = {
        "templating": {"list": variables},
        "panels": [{"type": "timeseries", "title": "one", "targets": [{"expr": query.expr}]}],
    }
    ((_, promql),) = grafana_queries(dashboard, rate_interval=RATE_INTERVAL)
    result = prometheus.wait_for(promql) if at is None else prometheus.query(promql, at=at)
    return {sample["metric"].get(label, ""): float(sample["value"][1]) for sample in result}


def test_joules_a_token_is_a_ratio_of_sums_and_absent_without_tokens(prometheus: Prometheus) -> None:
    found = values(prometheus, queries.joules_per_output_token(), "variant")
    assert found == {"bf16": pytest.approx(0.3), "int4": pytest.approx(0.5)}


def test_joules_a_token_can_be_told_by_adapter(prometheus: Prometheus) -> None:
    found = values(prometheus, queries.joules_per_output_token(by=("model", "variant", "adapter")), "adapter")
    assert found == {"none": pytest.approx(0.3), "json": pytest.approx(0.5)}


def test_error_ratio_is_zero_where_nothing_failed_and_absent_where_nothing_ended(prometheus: Prometheus) -> None:
    found = values(prometheus, queries.error_ratio(), "variant")
    assert found == {"bf16": 0.0, "int4": pytest.approx(0.2)}


def test_requests_that_reached_no_configuration_are_told_apart(prometheus: Prometheus) -> None:
    assert set(values(prometheus, queries.requests_per_second(), "variant")) == {"bf16", "int4", "idle"}
    assert values(prometheus, queries.refused_ratio(), "") == {"": pytest.approx(0.1)}


def test_accounts_add_up_to_the_meter(prometheus: Prometheus) -> None:
    at = prometheus.query("time()")[0]["value"][0]  # one moment for both: extrapolation of rate() depends on it
    accounts = values(prometheus, queries.watts_by_account(), "account", at=at)
    assert set(accounts) == {"active", "other"}
    assert sum(accounts.values()) == pytest.approx(values(prometheus, queries.meter_watts(), "", at=at)[""])


def test_quantiles_are_read_from_the_buckets(prometheus: Prometheus) -> None:
    found = values(prometheus, queries.quantile("wattgate_time_to_first_token_seconds", 0.5), "variant")
    assert found["int4"] == pytest.approx(0.015)


def test_model_facts_and_memory_are_told_by_configuration(prometheus: Prometheus) -> None:
    assert values(prometheus, queries.model_facts(), "quantization") == {"none": 4_200_000}
    assert values(prometheus, queries.model_size(), "variant")["int4"] == 4_000_000
    assert values(prometheus, queries.memory_of_replica(), "variant")["int4"] == 2.5e9
    assert set(values(prometheus, queries.memory_by_kind(), "kind")) == {"resident", "weights"}


def test_state_of_an_engine_is_the_code_of_its_one_state(prometheus: Prometheus) -> None:
    found = values(prometheus, queries.engine_state_code(), "engine")
    assert queries.ENGINE_STATES[int(found["demo-int4"]) - 1] == "ready"
    assert queries.ENGINE_STATES[int(found["demo-idle"]) - 1] == "backoff"
