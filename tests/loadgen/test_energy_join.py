"""Joules of requests and of the window, the server's metrics, and the word to the control plane."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import gevent
import pytest
from control_api import ControlApi, control_api, ledger_row
from hypothesis import given
from hypothesis import strategies as st
from planned import plan, prepared

from loadgen._control import Control, RefusedError
from loadgen._energy import Counters, parse_counters
from loadgen._energy_join import (
    RequestEnergy,
    energy_window,
    ledger_energies,
    model_energies,
    settled_energies,
)
from loadgen._errors import LoadError
from loadgen._exposition import Scrape
from loadgen._prompts import Calibration
from loadgen._record import Record
from loadgen._server_metrics import Reading, server_report
from loadgen._server_watch import ServerSide, ServerWatch, check_control
from loadgen._summary import Window

SINCE = "2026-01-01T00:00:00+00:00"


def request(index: int, *, model: str = "demo:int8", tokens: int = 10, warm_up: bool = False, **fields: Any) -> Record:
    values: dict[str, Any] = {
        "index": index,
        "request_id": f"load-s-{index}",
        "model": model,
        "served_by": model,
        "warm_up": warm_up,
        "scheduled_s": 0.0,
        "sent_s": 0.0,
        "token_s": tuple(0.01 * at for at in range(tokens)),
        "ended_s": 0.2,
        "prompt_tokens": 5,
        "cached_tokens": None,
        "output_tokens": tokens,
        "finish_reason": "length",
        "error": None,
        "message": None,
    }
    return Record(**{**values, **fields})


def energy(joules: float, *, engine: str = "e1", grams: float | None = 0.5) -> RequestEnergy:
    return RequestEnergy(
        engine=engine,
        joules=joules,
        prefill_joules=joules / 4,
        decode_joules=joules * 3 / 4,
        whole=True,
        scope="gpu",
        method="phase_time",
        confidence=0.9,
        co2e_grams=grams,
        cost=None,
        currency="EUR",
    )


def side_of(api: ControlApi, records: list[Record], *arguments: str, seconds: float = 0.3) -> ServerSide:
    """A run of that many seconds, watched to its end."""
    of = plan("--control", api.url, *arguments)
    watch = ServerWatch(of, prepared("demo:int8", calibration=Calibration(fixed_tokens=1, tokens_a_word=1)))
    began = time.monotonic()
    gevent.sleep(seconds)
    window = Window(start_s=0.05, end_s=seconds - 0.05)
    side = watch.end(records, window, origins_s=[began, began + 1e6], ended_at=time.monotonic())
    watch.told(partial=False, summary=Path("/there/summary.json"))
    return side


# --- the ledger ---------------------------------------------------------------------------------------------------


def test_joules_come_by_request_id_in_one_question() -> None:
    with control_api() as api, Control(api.url) as control:
        api.rows = [
            ledger_row("load-s-1", 3.0, grams=0.25, currency="EUR", engine="e2"),
            ledger_row("load-s-2", None),
            ledger_row("of-somebody-else", 9.0),
        ]
        found = ledger_energies(control, ["load-s-1", "load-s-2"], since=SINCE)
    assert set(found) == {"load-s-1"}
    assert (found["load-s-1"].joules, found["load-s-1"].engine, found["load-s-1"].co2e_grams) == (3.0, "e2", 0.25)
    line = found["load-s-1"].to_json()
    assert line["joules_by_phase"] == {"prefill": 1.5, "decode": 1.5}
    assert (line["joules"], line["energy_method"], line["energy_confidence"]) == (3.0, "phase_time", 0.9)
    assert len(api.asked) == 1


def test_ledger_is_asked_again_until_all_is_final() -> None:
    with control_api() as api, Control(api.url) as control:
        api.rows, api.final_after = [ledger_row("load-s-1", 3.0)], 2
        found = settled_energies(control, ["load-s-1"], since=SINCE, wait_s=60.0, sleep=lambda _: None)
        assert found["load-s-1"].joules == 3.0
        assert len(api.asked) == 3
        assert settled_energies(control, ["load-s-9"], since=SINCE, wait_s=0.0, sleep=lambda _: None) == {}


def test_control_plane_without_a_ledger_is_said() -> None:
    with control_api() as api, Control(f"{api.url}/nowhere") as control, pytest.raises(LoadError, match="404"):
        ledger_energies(control, ["a"], since=SINCE)


# --- sums ---------------------------------------------------------------------------------------------------------


def test_model_has_the_joules_of_its_own_measured_requests() -> None:
    records = [request(0), request(1, tokens=30), request(2, model="demo:bf16"), request(3, warm_up=True), request(4)]
    energies = {f"load-s-{index}": energy(float(index + 1)) for index in range(4)}
    found = model_energies(records, energies, idle_joules={"e1": 30.0}, tokens_within=lambda _: 10.0)
    of = found["demo:int8"]
    assert (of.requests, of.unknown, of.joules, of.output_tokens) == (2, 1, 3.0, 40)
    assert (of.prefill_joules, of.decode_joules) == (0.75, 2.25)
    assert of.joules_per_request == 1.5
    assert of.joules_per_output_token == pytest.approx(3 / 40)
    # 30 J of idle over the 40 tokens that the engine's four known requests had in the window.
    assert of.joules_per_output_token_with_idle == pytest.approx(3 / 40 + 30 / 40)
    assert of.co2e_grams_per_1k_output_tokens == pytest.approx(1.0 / 40 * 1000)
    assert found["demo:bf16"].joules == 3.0


def test_what_is_unknown_of_one_request_is_unknown_of_the_sum() -> None:
    energies = {"load-s-0": energy(1.0), "load-s-1": energy(1.0, grams=None)}
    of = model_energies([request(0), request(1)], energies, idle_joules={}, tokens_within=lambda _: 1.0)["demo:int8"]
    assert (of.co2e_grams, of.cost, of.joules_per_output_token_with_idle) == (None, None, None)
    nothing = model_energies([request(0)], {}, idle_joules={}, tokens_within=lambda _: 1.0)["demo:int8"]
    assert (nothing.requests, nothing.unknown, nothing.joules_per_output_token) == (0, 1, None)


@given(rate=st.floats(0.1, 1000), start=st.floats(0, 4), length=st.floats(0.5, 5))
def test_window_has_the_joules_of_its_length_at_constant_power(rate: float, start: float, length: float) -> None:
    readings = [(100.0 + at, counters(rate * at)) for at in (-1.0, 0.3, 1.7, 4.0, 9.5)]
    found = energy_window(readings, start_s=start, end_s=start + length, origin_s=100.0, output_tokens=50.0)
    assert found is not None
    assert found.mean_watts == pytest.approx(rate, rel=1e-4)
    assert found.device_joules == pytest.approx(rate * length, rel=1e-4)
    assert math.fsum(found.account_joules.values()) == pytest.approx(found.device_joules, rel=1e-4)
    assert found.joules_per_output_token_with_idle == pytest.approx(rate * length / 50, rel=1e-4)


def test_window_beyond_the_readings_is_unknown() -> None:
    readings = [(100.0, counters(0.0)), (101.0, counters(5.0))]
    assert energy_window(readings, start_s=0.5, end_s=2.0, origin_s=100.0, output_tokens=1.0) is None


def counters(joules: float) -> Counters:
    uj = round(joules * 1e6)
    return parse_counters(
        {
            "configurations": [],
            "devices": [{"scope": "gpu"}],
            "microjoules": {"devices": {"gpu:0": uj}, "accounts": {"active": uj // 2, "idle": uj - uj // 2}},
        }
    )


# --- a run --------------------------------------------------------------------------------------------------------


def test_run_is_watched_joined_and_announced() -> None:
    records = [request(index) for index in range(3)]
    with control_api() as api:
        api.rows = [ledger_row(record.request_id, 2.0, grams=0.1, currency="EUR") for record in records]
        side = side_of(api, records, "--rate", "4", "--seed", "5", "--salt", "s")
    assert side.notes == ()
    assert side.energy is not None
    assert side.energy.window is not None
    assert side.energy.window.mean_watts == pytest.approx(50.0, rel=0.05)
    assert side.energy.window.account_joules["idle"] == pytest.approx(0.4 * side.energy.window.device_joules, rel=0.01)
    model = side.energy.models["demo:int8"]
    assert (model.requests, model.unknown, model.joules_per_output_token) == (3, 0, pytest.approx(0.2))
    assert model.joules_per_output_token_with_idle is not None
    assert set(side.requests) == {record.request_id for record in records}
    [(path, begun), (end_path, ended)] = api.posts
    assert (path, end_path) == ("/api/runs", "/api/runs/end")
    assert (begun["workload"], begun["rate_per_s"], begun["seed"], begun["concurrency"]) == ("fixed", 4.0, 5, None)
    assert begun["models"] == ["demo:int8"]
    assert ended == {"id": 7, "partial": False, "summary": "/there/summary.json"}


def test_refused_key_is_a_sentence_and_the_run_goes_on() -> None:
    with control_api() as api:
        api.key, api.metrics_key = "right", "reads"
        api.rows = [ledger_row("load-s-0", 1.0)]
        check_control(plan("--control", api.url, "--control-token", "wrong"))
        side = side_of(api, [request(0)], "--control-token", "wrong", seconds=0.12)
        assert (side.energy, side.server, side.requests) == (None, None, {})
        assert [note.partition(": it needs an admin key")[0] for note in side.notes] == [
            "The control API refuses the key (no joules, no server metrics, not announced)"
        ]
        side = side_of(api, [request(0)], "--control-token", "reads", seconds=0.12)
        assert side.energy is None
        assert side.server is not None
        side = side_of(api, [request(0)], "--control-token", "right", seconds=0.12)
        assert side.energy is not None
        with Control(api.url, "wrong") as control, pytest.raises(RefusedError):
            control.get("/api/energy")


def test_control_plane_that_knows_no_runs_and_no_ledger_gives_what_it_has() -> None:
    with control_api() as api:
        api.runs_exist = False
        api.exposition = b"# nothing\n"
        side = side_of(api, [request(0, error="http_500")], seconds=0.12)
    assert side.energy is not None
    assert side.energy.models == {}
    assert side.run is not None
    assert side.run["id"] is None
    assert any("Not announced: " in note for note in side.notes)
    assert side.server is not None
    assert side.server["counters"]["requests"] is None
    assert api.posts == []


def test_control_url_where_nothing_answers_ends_the_run_before_it_begins() -> None:
    of = plan("--control", "http://127.0.0.1:9")
    with pytest.raises(LoadError, match="does not answer"):
        check_control(of)
    with pytest.raises(LoadError, match="Leave --control out"):
        ServerWatch(of, prepared("m", calibration=Calibration(fixed_tokens=1, tokens_a_word=1)))


# --- the server's metrics -----------------------------------------------------------------------------------------

_BEFORE = """# TYPE wattgate_requests counter
wattgate_requests_total{engine="a",outcome="ok"} 10
# TYPE wattgate_engine_prefix_cache_queries counter
wattgate_engine_prefix_cache_queries_total{engine="a"} 100
# TYPE wattgate_engine_prefix_cache_hits counter
wattgate_engine_prefix_cache_hits_total{engine="a"} 40
# TYPE wattgate_queue_time_seconds histogram
wattgate_queue_time_seconds_bucket{engine="a",le="0.1"} 5
wattgate_queue_time_seconds_bucket{engine="a",le="0.3"} 5
wattgate_queue_time_seconds_bucket{engine="a",le="+Inf"} 5
wattgate_queue_time_seconds_sum{engine="a"} 0.1
wattgate_queue_time_seconds_count{engine="a"} 5
"""
_AFTER = """# TYPE wattgate_requests counter
wattgate_requests_total{engine="a",outcome="ok"} 25
wattgate_requests_total{engine="b",outcome="ok"} 5
wattgate_requests_total{engine="a",outcome="rejected"} 2
# TYPE wattgate_engine_prefix_cache_queries counter
wattgate_engine_prefix_cache_queries_total{engine="a"} 300
# TYPE wattgate_engine_prefix_cache_hits counter
wattgate_engine_prefix_cache_hits_total{engine="a"} 140
# TYPE wattgate_queue_time_seconds histogram
wattgate_queue_time_seconds_bucket{engine="a",le="0.1"} 5
wattgate_queue_time_seconds_bucket{engine="a",le="0.3"} 15
wattgate_queue_time_seconds_bucket{engine="a",le="+Inf"} 15
wattgate_queue_time_seconds_sum{engine="a"} 2.1
wattgate_queue_time_seconds_count{engine="a"} 15
"""


def reading(at_s: float, **gauges: float) -> Reading:
    lines = "".join(f"# TYPE {name} gauge\n{name} {value}\n" for name, value in gauges.items())
    return Reading(at_s, lines.encode(), at_s - 1.0)


def test_server_report_tells_what_rose_between_two_scrapes() -> None:
    readings = [
        reading(10.0, wattgate_requests_in_flight=2, wattgate_kv_cache_usage_ratio=0.5),
        reading(11.0, wattgate_requests_in_flight=4),
    ]
    found = server_report(Reading(10.0, _BEFORE.encode()), Reading(12.0, _AFTER.encode()), readings, 10.0)
    assert (found["start_s"], found["end_s"]) == (0.0, 2.0)
    assert found["counters"]["requests"] == {"ok": 20.0, "rejected": 2.0}
    assert found["counters"]["preemptions"] is None
    assert found["prefix_cache_hit_ratio"] == 0.5
    queue = found["histograms"]["queue_time_s"]
    assert (queue["samples"], queue["mean"], queue["p50"]) == (10, pytest.approx(0.2), pytest.approx(0.2))
    assert found["histograms"]["overhead_s"] is None
    assert found["series"]["in_flight"] == [2.0, 4.0]
    assert found["series"]["kv_usage_ratio"] == [0.5, None]
    assert found["series"]["at_s"] == [0.0, 1.0]
    assert found["gauges"]["in_flight"] == {"mean": 3.0, "max": 4.0}
    assert found["gauges"]["queue_depth"] == {"mean": None, "max": None}


def test_counter_that_was_started_anew_counts_from_zero() -> None:
    found = server_report(Reading(0.0, _AFTER.encode()), Reading(1.0, _BEFORE.encode()), [], 0.0)
    assert found["counters"]["requests"] == {"ok": 10.0}


def test_readings_keep_only_what_is_looked_at_each_second() -> None:
    kept = Reading(1.0, b"wattgate_queue_depth 3\nwattgate_requests_total 5\n# HELP x\n").kept
    assert kept.text == b"wattgate_queue_depth 3\n"
    assert Scrape(kept.text.decode()).sum("wattgate_queue_depth") == 3.0
