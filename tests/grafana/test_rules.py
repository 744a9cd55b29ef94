"""Rules that recording rules and alerts keep; what they do is tried by promtool (deploy/prometheus/tests)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from grafana.generate import RULE_FILES
from grafana.queries.rules import AVAILABILITY_OBJECTIVE, ENERGY_OBJECTIVE, LATENCY_OBJECTIVE
from grafana.rules import RULES, Alert, Recording
from grafana.rules.burn import WINDOWS
from grafana.rules.objectives import TTFT_BOUND_S
from server.telemetry.metrics import CATALOGUE

ALL = [rule for groups in RULES.values() for group in groups for rule in group.rules]
ALERTS = [rule for rule in ALL if isinstance(rule, Alert)]
RECORDINGS = [rule for rule in ALL if isinstance(rule, Recording)]
PROMTOOL_TESTS = RULE_FILES.parent / "tests"
OBJECTIVES = RULE_FILES.parent / "objectives.yml"


def test_every_metric_and_label_that_a_rule_reads_is_in_the_catalogue() -> None:
    for rule in ALL:
        for name, selector in re.findall(r"\b(wattgate_\w+)(?:\{([^}]*)\})?", rule.expr):
            metric = CATALOGUE[re.sub("_(bucket|count|sum)$", "", name)]
            labels = set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", selector))
            assert labels <= {*metric.labels, "le"}, rule


def test_every_recorded_series_that_an_alert_reads_is_recorded_or_an_objective() -> None:
    known = {rule.record for rule in RECORDINGS} | {AVAILABILITY_OBJECTIVE, LATENCY_OBJECTIVE, ENERGY_OBJECTIVE}
    for alert in ALERTS:
        assert set(re.findall(r"wattgate:[\w:]+", alert.expr)) <= known


def test_objectives_that_alerts_read_stand_in_the_file_that_people_edit() -> None:
    text = OBJECTIVES.read_text(encoding="utf-8")
    for objective in (AVAILABILITY_OBJECTIVE, LATENCY_OBJECTIVE, ENERGY_OBJECTIVE):
        assert f"record: {objective}" in text


def test_slow_begins_at_a_bucket_of_the_histogram() -> None:
    assert TTFT_BOUND_S in CATALOGUE["wattgate_time_to_first_token_seconds"].buckets


def test_what_is_recorded_covers_every_window_of_every_budget() -> None:
    windows = [re.sub("^.*_rate", "", rule.record) for rule in RECORDINGS]
    assert set(windows) == set(WINDOWS)
    assert len(windows) % len(WINDOWS) == 0


def test_alerts_of_one_name_differ_in_their_labels() -> None:
    told_apart = [(alert.name, alert.severity, *sorted(alert.labels.items())) for alert in ALERTS]
    assert len(set(told_apart)) == len(told_apart)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: f"{alert.name} {alert.labels.get('window', '')}")
def test_alert_says_what_happened_and_what_to_do_and_is_tried(alert: Alert) -> None:
    assert alert.summary
    assert alert.advice.endswith(".")
    tried = "".join(path.read_text(encoding="utf-8") for path in PROMTOOL_TESTS.glob("*.yml"))
    assert alert.name in tried


@pytest.mark.parametrize("path", sorted(RULE_FILES.glob("*.yml")), ids=lambda path: path.name)
def test_generated_files_are_yaml_that_says_so_itself(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Generated")
    assert [group["name"] for group in yaml.safe_load(text)["groups"]] == [g.name for g in RULES[path.stem]]
