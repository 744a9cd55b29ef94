"""The fixture around the real Prometheus, and how it replaces Grafana's variables."""

from __future__ import annotations

import pytest

from tests.fakes.prometheus import Prometheus, grafana_queries, has_number

DASHBOARD = {
    "templating": {
        "list": [
            {"type": "datasource", "name": "datasource", "query": "prometheus"},
            {"type": "query", "name": "model", "query": "label_values(up, job)", "allValue": ".+"},
            {"type": "query", "name": "engine", "query": 'label_values(up{job=~"$model"}, instance)'},
        ]
    },
    "panels": [
        {"type": "timeseries", "title": "One", "targets": [{"expr": 'rate(a{model=~"$model"}[$__rate_interval])'}]},
        {
            "type": "row",
            "title": "Row",
            "panels": [{"type": "stat", "title": "Two", "targets": [{"expr": "b[$__range]"}]}],
        },
        {"type": "text", "title": "No query"},
    ],
}


def test_variables_stand_for_everything_and_intervals_for_what_is_asked() -> None:
    assert grafana_queries(DASHBOARD, rate_interval="3s", time_range="9s") == [
        ("variable model", "group by (job) (up)"),
        ("variable engine", 'group by (instance) (up{job=~".+"})'),
        ("One", 'rate(a{model=~".+"}[3s])'),
        ("Two", "b[9s]"),
    ]


def test_a_chosen_value_replaces_its_variable() -> None:
    queries = dict(grafana_queries(DASHBOARD, variables={"model": "demo"}))
    assert queries["One"] == 'rate(a{model=~"demo"}[4s])'


def test_a_variable_that_the_dashboard_lacks_is_named() -> None:
    with pytest.raises(ValueError, match=r"\$tenant"):
        grafana_queries({"panels": [{"type": "stat", "title": "x", "targets": [{"expr": "a{t=~'$tenant'}"}]}]})


def test_only_a_finite_value_counts_as_a_number() -> None:
    assert not has_number([])
    assert not has_number([{"metric": {}, "value": [0, "NaN"]}])
    assert has_number([{"metric": {}, "value": [0, "NaN"]}, {"metric": {}, "value": [0, "0"]}])


def test_a_target_that_does_not_answer_is_named_with_the_reason(prometheus: Prometheus) -> None:
    with pytest.raises(AssertionError, match=r"127\.0\.0\.1:1/metrics.*refused"):
        prometheus.wait_for("no_such_metric", timeout_s=0.2)


def test_an_invalid_query_is_an_error_that_names_it(prometheus: Prometheus) -> None:
    with pytest.raises(ValueError, match=r"parse error.* in sum\("):
        prometheus.query("sum(")


def test_a_range_is_a_matrix(prometheus: Prometheus) -> None:
    now = float(prometheus.query("time()")[0]["value"][1])
    (series,) = prometheus.query_range("vector(7)", start=now - 1, end=now, step_s=1)
    assert [value for _, value in series["values"]] == ["7", "7"]


def test_a_configuration_that_prometheus_refuses_is_shown_with_its_words() -> None:
    with pytest.raises(AssertionError, match="not a valid duration"), Prometheus(targets=[], scrape_interval="soon"):
        pass
