"""The tabs in Locust's page: what they show while a run goes, and of its results."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planned import plan
from scripted_server import ScriptedServer, scripted_server

from loadgen._record import Record
from loadgen._slo import Slo
from loadgen._summary import Window, figures_of, total_of
from loadgen._ui._joules import JoulesSoFar
from loadgen._ui._so_far import SoFar

BOUND_S = 60.0
TABS = ("load-latency", "load-goodput", "load-joules")


def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Page:
    """What a browser asks Locust's page for."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def get(self, path: str) -> httpx.Response:
        return self._http.get(path)

    def figures(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get("/load/figures").json()
        return found

    def statistics(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get("/stats/requests").json()
        return found

    def row(self, model: str) -> dict[str, Any]:
        return next((row for row in self.figures()["rows"] if row["model"] == model), {})

    def swarm(self, **form: str) -> None:
        asked = {"user_count": "2", "spawn_rate": "2", **form}
        assert self._http.post("/swarm", data=asked).json()["success"]

    def stop(self) -> None:
        self._http.post("/stop")

    def up(self) -> bool:
        try:
            return self.get("/").is_success
        except httpx.TransportError:
            return False

    def wait_for_state(self, state: str) -> dict[str, Any]:
        wait_until(lambda: self.figures()["state"] == state)
        return self.figures()


@contextmanager
def page(root: Path, server: ScriptedServer, folder: Path, *options: str, base: str = "") -> Iterator[Page]:
    """`locust -f loadgen/` as a user starts it for the browser."""
    with (folder / "said").open("w+") as said:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "locust", "-f", str(root / "loadgen"), "--host", server.url),
                *("--web-port", str(web := port()), "--loglevel", "ERROR", *options),
            ],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{web}{base}", timeout=30, trust_env=False) as http:
                browser = Page(http)
                wait_until(browser.up)
                yield browser
        finally:
            process.terminate()
            process.wait(BOUND_S)
            said.seek(0)
            assert "Traceback" not in said.read()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def distributed() -> list[str]:
    return ["--processes", "2", "--master-bind-port", str(bound := port()), "--master-port", str(bound)]


@pytest.mark.parametrize("processes", [1, 2])
def test_tabs_show_the_script_while_the_run_goes_and_its_summary_after_it(
    root: Path, tmp_path: Path, processes: int
) -> None:
    more = distributed() if processes > 1 else []
    with (
        scripted_server("demo:int8", "cut") as server,
        page(root, server, tmp_path, "--control", server.url, "--slo", "ttft=30s", *more) as browser,
    ):
        assert browser.figures() == {"state": "none", "slo_s": None, "rows": []}
        browser.swarm(rate="40", arrivals="constant", output_tokens="4", output=str(tmp_path / "run"))
        wait_until(lambda: browser.row("demo:int8").get("ok", 0) >= 130 and browser.row("cut").get("errors", 0) > 0)
        wait_until(lambda: browser.row("all")["joules_per_output_token"] is not None)
        live = browser.figures()
        assert (live["state"], live["slo_s"]) == ("running", {"ttft": 30.0})
        assert browser.statistics()["state"] == "running"
        good, cut, total = live["rows"] if live["rows"][0]["model"] == "demo:int8" else _swapped(live["rows"])
        assert (good["ok"], good["errors"], good["attainment"]) == (good["requests"], 0, 1.0)
        assert (cut["ok"], cut["errors"], cut["attainment"]) == (0, cut["requests"], 0.0)
        assert (total["requests"], total["ok"]) == (good["requests"] + cut["requests"], good["ok"])
        assert total["attainment"] == pytest.approx(good["ok"] / total["requests"])
        assert good["ttft_p95_s"] >= good["ttft_p50_s"] > 0
        assert cut["ttft_p50_s"] is None
        assert good["good_output_tokens_per_s"] == pytest.approx(4 * good["good_requests_per_s"])
        assert good["joules_per_output_token"] == 0.25
        browser.stop()
        ended = browser.wait_for_state("ended")
        statistics = browser.statistics()
    written = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert written["processes"] == processes
    for row, model in zip(ended["rows"], [*written["models"], written["totals"]], strict=True):
        assert (row["model"], row["requests"], row["ok"]) == (model["model"], model["requests"], model["ok"])
        assert row["errors"] == sum(model["errors"].values())
        assert row["attainment"] == model["goodput"]["attainment"]
        assert row["output_tokens_per_s"] == model["output_tokens_per_s"]
        valid = model["validity"]["time_to_first_token_s"]["verdict"] == "valid"
        assert row["ttft_p50_s"] == (model["time_to_first_token_s"]["p50"] if valid else None)
    assert statistics["state"] == "stopped"
    assert [tab["key"] for tab in statistics["extended_stats"]] == list(TABS)
    assert [line["model"] for line in statistics["extended_stats"][0]["data"]] == [r["model"] for r in ended["rows"]]


def test_last_results_are_downloaded_by_name_and_nothing_else_is(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("not yours", encoding="utf-8")
    with scripted_server("demo:int8") as server, page(root, server, tmp_path) as browser:
        assert browser.get("/load/files/summary.json").status_code == 404
        browser.swarm(requests="12", output_tokens="3")
        ended = browser.wait_for_state("ended")
        (folder,) = (tmp_path / "runs").iterdir()
        for name in ("summary.json", "requests.jsonl", "report.html"):
            answer = browser.get(f"/load/files/{name}")
            assert (answer.status_code, answer.content) == (200, (folder / name).read_bytes())
        for name in ("histograms.json", "../../secret", "..%2f..%2fsecret", "%2e%2e/%2e%2e/secret", "/etc/passwd", ""):
            answer = browser.get(f"/load/files/{name}")
            assert (name, answer.status_code) == (name, 404)
        tabs = browser.statistics()["extended_stats"]
        front = browser.get("/").text
    assert all(key in front for key in (*TABS, "./load/files/report.html"))
    (row, total) = ended["rows"]
    assert (row["ok"], row["ttft_p95_s"], row["attainment"], row["joules_per_output_token"]) == (12, None, None, None)
    assert {**row, "model": "all"} == total
    assert tabs[2]["data"][0]["joules"] == "n/a"
    assert (tabs[0]["data"][0]["ok"], tabs[0]["data"][0]["ttft_tail"]) == (12, "n/a")


def test_start_that_fails_leaves_the_tabs_empty(root: Path, tmp_path: Path) -> None:
    with scripted_server("demo:int8") as server, page(root, server, tmp_path) as browser:
        browser.swarm(slo="tftt=1s")
        wait_until(lambda: browser.statistics()["state"] == "stopped")
        assert browser.figures() == {"state": "none", "slo_s": None, "rows": []}
    assert "tftt" in (tmp_path / "said").read_text(encoding="utf-8")


def test_tabs_lie_under_the_base_path_of_the_page(root: Path, tmp_path: Path) -> None:
    with (
        scripted_server("demo:int8") as server,
        page(root, server, tmp_path, "--web-base-path", "/locust", base="/locust") as browser,
    ):
        assert browser.figures()["state"] == "none"
        assert [tab["key"] for tab in browser.statistics()["extended_stats"]] == list(TABS)


def test_joules_are_asked_for_every_two_seconds_at_most() -> None:
    now = [100.0]
    with scripted_server("demo:int8") as server:
        chat = {"model": "demo:int8", "max_tokens": 4}
        server.chats.append(chat)
        joules = JoulesSoFar(plan("--control", server.url), clock=lambda: now[0])
        server.chats.append(chat)
        now[0] = 101.9
        assert joules.report() is None
        now[0] = 102.0
        assert _active(joules) == 1.0
        server.chats.append(chat)
        now[0] = 103.9
        assert _active(joules) == 1.0
        now[0] = 104.0
        assert _active(joules) == 2.0
    now[0] = 106.0
    assert joules.report() is None


def _active(joules: JoulesSoFar) -> float:
    report = joules.report()
    assert report is not None
    return sum(use.active_joules for use in report.uses)


def _swapped(rows: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    return rows[1], rows[0], rows[2]


@st.composite
def records(draw: st.DrawFn) -> list[Record]:
    gaps = st.floats(0.001, 0.1)
    made = []
    for index in range(draw(st.integers(0, 40))):
        scheduled = draw(st.floats(0.0, 10.0))
        token_s = [scheduled + draw(gaps)]
        for _ in range(draw(st.integers(0, 5))):
            token_s.append(token_s[-1] + draw(gaps))
        error = draw(st.sampled_from([None, None, None, "truncated"]))
        made.append(
            Record(
                index=index,
                model=draw(st.sampled_from(["a", "b"])),
                served_by=None,
                warm_up=scheduled < 2.0,
                scheduled_s=scheduled,
                sent_s=scheduled,
                token_s=tuple(token_s),
                ended_s=token_s[-1],
                prompt_tokens=9,
                cached_tokens=None,
                output_tokens=draw(st.sampled_from([len(token_s)] * 20 + [None])),
                finish_reason="length",
                error=error,
                message=error,
            )
        )
    return made


@given(records(), st.sampled_from(["", "ttft=50ms", "ttft=60ms,tpot=40ms"]), st.integers(1, 40))
def test_figures_so_far_are_those_of_a_summary_of_the_same_records(made: list[Record], text: str, step: int) -> None:
    slo = Slo.parse(text)
    so_far = SoFar(slo, warm_up_s=2.0, take_turns=lambda: None)
    for end in (*range(0, len(made), step), len(made)):
        so_far.look(made[:end])
    found = {row.model: row for row in so_far.rows(None)}
    window = Window(start_s=2.0, end_s=max([2.0, *(record.ended_s for record in made)]))
    closed = Window(start_s=2.0, end_s=window.end_s + 1e-9)
    expected = [*figures_of(made, closed, slo=slo), *([total_of(made, closed, slo=slo)] if made else [])]
    assert set(found) == {figures.model for figures in expected}
    for figures in expected:
        row = found[figures.model]
        assert (row.requests, row.ok, row.errors) == (
            figures.requests,
            figures.ok,
            sum(figures.errors.values()),
        )
        same(row.ttft_p50_s, figures.time_to_first_token_s.p50)
        same(row.itl_p95_s, figures.inter_token_latency_s.p95)
        same(row.tpot_p50_s, figures.time_per_output_token_s.p50)
        if window.length_s > 0:
            goodput = figures.goodput
            same(row.output_tokens_per_s, figures.output_tokens_per_s)
            same(row.attainment, goodput.attainment if goodput else None)
            same(row.good_requests_per_s, goodput.requests_per_s if goodput else None)
            same(row.good_output_tokens_per_s, goodput.output_tokens_per_s if goodput else None)


def same(found: float | None, expected: float | None) -> None:
    assert found == (expected if expected is None else pytest.approx(expected, rel=0.006))


def test_a_second_look_during_one_counts_no_record_twice() -> None:
    made = [
        Record(
            index=index,
            model="a",
            served_by=None,
            warm_up=False,
            scheduled_s=0.0,
            sent_s=0.0,
            token_s=(0.1, 0.2),
            ended_s=0.2,
            prompt_tokens=9,
            cached_tokens=None,
            output_tokens=2,
            finish_reason="length",
            error=None,
            message=None,
        )
        for index in range(35)
    ]
    turns: list[None] = []

    def look_meanwhile() -> None:
        turns.append(None)
        so_far.look(made)

    so_far = SoFar(Slo.parse(""), warm_up_s=0.0, take_turns=look_meanwhile)
    so_far.look(made)
    (row, _) = so_far.rows(None)
    assert row.requests == 35
    assert len(turns) > 1
