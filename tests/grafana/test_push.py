"""Pushing to a running Grafana: everything once, nothing twice, and clear words when it cannot be."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from grafana.__main__ import main
from grafana.boards import BOARDS
from grafana.rules import RULES, Alert
from server.control.admin_runs import add_runs
from server.control.runs import Announcement, Runs
from tests.fakes.clock import FakeClock
from tests.fakes.grafana_server import PASSWORD, TOKEN, USER, GrafanaServer, grafana_server

PROMETHEUS = ["--prometheus", "http://prometheus:9090"]
ALERTS = [rule for groups in RULES.values() for group in groups for rule in group.rules if isinstance(rule, Alert)]


@contextmanager
def runs_api(runs: Runs) -> Iterator[str]:
    """The control port's routes for load runs, on a real socket."""
    app = FastAPI()
    add_runs(app, runs, FakeClock())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=serving.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            serving.should_exit = True
            thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[GrafanaServer]:
    with grafana_server() as started:
        monkeypatch.setenv("GRAFANA_URL", started.url)
        monkeypatch.setenv("GRAFANA_TOKEN", TOKEN)
        yield started


def test_push_makes_everything_and_a_second_one_changes_nothing(
    server: GrafanaServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", *PROMETHEUS]) == 0
    assert set(server.folders) == {"wattgate"}
    assert server.data_sources["wattgate-prometheus"]["url"] == "http://prometheus:9090"
    assert set(server.dashboards) == {board.uid for board in BOARDS.values()}
    assert len(server.alert_rules) == len(ALERTS)
    assert "create  dashboard Wattgate / Compare configurations" in capsys.readouterr().out
    server.writes.clear()
    assert main(["push", *PROMETHEUS]) == 0
    assert server.writes == []
    assert main(["diff", *PROMETHEUS]) == 0


def test_what_somebody_changed_there_is_named_and_put_right(
    server: GrafanaServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", *PROMETHEUS]) == 0
    board = server.dashboards["wattgate-compare"]
    board["panels"][1]["title"] = "Something else"
    server.data_sources["wattgate-prometheus"]["url"] = "http://elsewhere"
    capsys.readouterr()
    assert main(["diff", *PROMETHEUS]) == 1
    said = capsys.readouterr().out
    assert "update  dashboard Wattgate / Compare configurations (panels[1].title)" in said
    assert "update  data source Wattgate (url)" in said
    assert "same    dashboard Wattgate / Overview" in said
    assert main(["push", *PROMETHEUS]) == 0
    assert main(["diff", *PROMETHEUS]) == 0
    assert server.dashboards["wattgate-compare"]["version"] == 2


def test_dry_run_says_what_would_be_done_and_does_nothing(
    server: GrafanaServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", "--dry-run", *PROMETHEUS]) == 0
    assert server.writes == []
    assert "create  alert rule WattgateMeterDown" in capsys.readouterr().out


def test_without_a_prometheus_only_dashboards_are_pushed(server: GrafanaServer) -> None:
    assert main(["push"]) == 0
    assert server.dashboards
    assert not server.data_sources
    assert not server.alert_rules


def test_name_and_password_do_as_well(server: GrafanaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAFANA_TOKEN")
    monkeypatch.setenv("GRAFANA_USER", USER)
    monkeypatch.setenv("GRAFANA_PASSWORD", PASSWORD)
    assert main(["push"]) == 0
    assert server.dashboards


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"GRAFANA_TOKEN": "wrong"}, "refuses these credentials (401)"),
        ({"GRAFANA_TOKEN": ""}, "Set GRAFANA_TOKEN"),
        ({"GRAFANA_URL": "http://127.0.0.1:1"}, "does not answer"),
        ({"GRAFANA_URL": "127.0.0.1:3000"}, "is no address"),
        ({"GRAFANA_URL": ""}, "No Grafana is named"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    server: GrafanaServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    said: str,
) -> None:
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    assert main(["push"]) == 2
    words = capsys.readouterr().err
    assert said in words
    assert "Traceback" not in words
    assert server.writes == []


def test_grafana_that_is_too_old_is_refused_with_the_lowest_version(
    server: GrafanaServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.version = "10.4.1"
    assert main(["push"]) == 2
    assert "is Grafana 10.4.1; these dashboards need 11.1 or newer" in capsys.readouterr().err


def test_grafana_that_fails_is_told_with_its_own_words(
    server: GrafanaServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.broken = True
    assert main(["push"]) == 2
    assert "database is locked" in capsys.readouterr().err


def test_alert_rules_ask_for_what_the_generated_rules_ask_for(server: GrafanaServer) -> None:
    assert main(["push", *PROMETHEUS]) == 0
    asked = {rule["data"][0]["model"]["expr"] for rule in server.alert_rules.values()}
    assert asked == {f"({alert.expr}) * 0 + 1" for alert in ALERTS}
    assert httpx.get(server.url).status_code == 401


def test_load_runs_become_annotations_once(
    server: GrafanaServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Runs(tmp_path / "runs.json", FakeClock(wall=1_800_000_000.0))
    first = runs.announce(Announcement(name="nightly", workload="chat"))
    runs.end(first.id)
    runs.announce(Announcement(name="still going", workload="code"))
    with runs_api(runs) as control:
        assert main(["push", "--control", control]) == 0
        assert main(["push", "--control", control]) == 0
        assert main(["push", "--dry-run", "--control", control]) == 0
    (only,) = server.annotations
    assert only["text"].startswith(f"nightly chat [{first.id} of 2027-01-15T08:00:00")
    assert only["time"] == only["timeEnd"] == 1_800_000_000_000
    assert set(only["tags"]) == {"wattgate", "load"}
    assert "create  0 annotations of load runs" in capsys.readouterr().out


def test_control_plane_that_does_not_answer_is_named(server: GrafanaServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", "--control", "http://127.0.0.1:1"]) == 2
    assert "http://127.0.0.1:1 does not tell its load runs" in capsys.readouterr().err
