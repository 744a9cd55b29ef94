"""Rules that every dashboard, row and panel keeps, and the generated JSON."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.parser import text_string_to_metric_families

from grafana.__main__ import main
from grafana.boards import BOARDS
from grafana.generate import DASHBOARDS, render
from grafana.panels import PANEL_KINDS, Panel
from grafana.queries import ENGINE_STATES, error_ratio
from grafana.rows import ROWS
from grafana.variables import variables
from server.fleet import EngineState
from server.telemetry.metrics import CATALOGUE
from server.wire import Outcome
from tests.fakes.exposition import Exposition

ALL_PANELS = [pytest.param(panel, id=panel.title) for row in ROWS.values() for panel in row.panels]
ALL_BOARDS = [pytest.param(name, id=name) for name in BOARDS]

BUILT_IN = {"__rate_interval", "__range"}


def drawn(name: str) -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads(render(BOARDS[name]))
    return dashboard


@pytest.mark.parametrize("panel", ALL_PANELS)
def test_panel_says_what_it_shows_what_no_data_means_and_which_metrics_it_reads(panel: Panel) -> None:
    assert panel.unit
    assert panel.shows.endswith(".")
    assert panel.no_data.endswith(".")
    assert panel.metrics, "a panel without a metric shows nothing of Wattgate"
    for metric in panel.metrics:
        assert f"`{metric}`" in panel.description


@pytest.mark.parametrize("panel", ALL_PANELS)
def test_every_metric_and_label_that_a_panel_reads_is_in_the_catalogue(panel: Panel) -> None:
    for metric in panel.metrics:
        assert metric in CATALOGUE, f"{panel.title!r} reads {metric}, which the gateway does not export"
    for query in panel.queries:
        for name, selector in re.findall(r"(wattgate_\w+)\{([^}]*)\}", query.expr):
            labels = set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", selector))
            assert labels <= set(CATALOGUE[name.removesuffix("_bucket")].labels), f"{panel.title!r}: {name}"


def test_every_metric_of_a_variable_is_in_the_catalogue() -> None:
    for query in (variable.query for variable in variables() if variable.name != "datasource"):
        (name,) = re.findall(r"wattgate_\w+", str(query))
        assert name in CATALOGUE


def test_the_exposition_that_the_queries_are_tried_on_has_the_catalogues_names_and_labels() -> None:
    for family in text_string_to_metric_families(Exposition().text(1)):
        for sample in family.samples:
            metric = CATALOGUE[re.sub("_(bucket|count|sum)$", "", sample.name)]
            assert set(sample.labels) - {"le"} == set(metric.labels), sample.name


@pytest.mark.parametrize("panel", ALL_PANELS)
def test_panel_is_drawn_by_a_listed_kind(panel: Panel) -> None:
    assert type(panel.drawing) in PANEL_KINDS.values()


@pytest.mark.parametrize("panel", ALL_PANELS)
def test_rates_are_taken_over_a_window_that_grafana_chooses(panel: Panel) -> None:
    for query in panel.queries:
        windows = re.findall(r"\[([^\]]+)\]", query.expr)
        assert set(windows) <= {"$__rate_interval", "$__range"}


@pytest.mark.parametrize("name", ALL_BOARDS)
def test_drawn_panel_carries_unit_description_data_source_and_a_word_for_no_data(name: str) -> None:
    panels = [panel for panel in drawn(name)["panels"] if panel["type"] != "row"]
    assert panels
    for panel in panels:
        assert panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"]
        assert defaults["noValue"]
        assert [target["refId"] for target in panel["targets"]] == sorted({t["refId"] for t in panel["targets"]})


@pytest.mark.parametrize("name", ALL_BOARDS)
def test_queries_use_only_variables_that_the_dashboard_defines(name: str) -> None:
    dashboard = drawn(name)
    defined = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert defined >= {"datasource", "model", "variant", "adapter", "engine"}
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= defined | BUILT_IN


@pytest.mark.parametrize("name", ALL_BOARDS)
def test_panels_have_ids_of_their_own_and_lie_side_by_side_on_the_grid(name: str) -> None:
    panels = drawn(name)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, f"{one} and {other} overlap"


@pytest.mark.parametrize("name", ALL_BOARDS)
def test_links_keep_the_time_range_and_the_selection(name: str) -> None:
    links = drawn(name)["links"]
    assert links
    assert all(link["keepTime"] and link["includeVars"] for link in links)


@pytest.mark.parametrize("name", ALL_BOARDS)
def test_dashboard_reads_back_through_the_typed_models_unchanged(name: str) -> None:
    register_default_plugins()
    text = render(BOARDS[name])
    read = Dashboard.from_json(json.loads(text))
    assert json.loads(JSONEncoder().encode(read)) == json.loads(text)


def test_uids_are_unique_and_short_enough_for_grafana() -> None:
    uids = [board.uid for board in BOARDS.values()]
    assert len(set(uids)) == len(uids)
    assert all(len(uid) <= 40 for uid in uids)


def test_committed_dashboards_are_what_their_source_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0, capsys.readouterr().err


def _into(folder: Path) -> list[str]:
    return ["--folder", str(folder), "--rules", str(folder / "rules")]


def test_check_summarises_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*_into(tmp_path), "generate"]) == 0
    assert main([*_into(tmp_path), "check"]) == 0
    board = tmp_path / "compare.json"
    board.write_text(board.read_text().replace('"unit": "watt"', '"unit": "kwatt"'))
    (tmp_path / "gone.json").write_text("{}")
    capsys.readouterr()
    assert main([*_into(tmp_path), "check"]) == 1
    said = capsys.readouterr().err
    assert "compare.json: 2 lines differ" in said
    assert '-          "unit": "kwatt"' in said
    assert "gone.json" in said
    assert "python -m grafana generate" in said


def test_generate_removes_the_json_of_a_dashboard_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "gone.json").write_text("{}")
    assert main([*_into(tmp_path), "generate"]) == 0
    assert sorted(path.name for path in tmp_path.glob("*.json")) == sorted(f"{name}.json" for name in BOARDS)


def test_a_missing_dashboard_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*_into(tmp_path), "check"]) == 1
    assert "compare.json: is missing" in capsys.readouterr().err


def test_states_are_those_of_the_fleet() -> None:
    assert list(ENGINE_STATES) == [state.value for state in EngineState]


def test_errors_are_the_outcomes_that_the_service_is_to_blame_for() -> None:
    found = re.search(r'outcome=~"([^"]+)"', error_ratio().expr)
    assert found is not None
    blameless = {Outcome.OK, Outcome.CLIENT_ERROR, Outcome.CANCELLED}
    assert set(found[1].split("|")) == {outcome.value for outcome in Outcome} - {one.value for one in blameless}


def test_generated_json_lies_where_the_package_looks_for_it(root: Path) -> None:
    assert root / "grafana" / "dashboards" == DASHBOARDS
