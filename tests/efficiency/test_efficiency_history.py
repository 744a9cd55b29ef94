"""The edges of a sliding window: its start, restarts, meters that come late or never."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.efficiency.use import Use
from server.fleet import EngineState
from server.units import Seconds
from tests.efficiency.house import INT4, House, served
from tests.fakes.batches import record, replica


def test_before_the_first_tick_there_are_no_rows() -> None:
    house = House()
    assert house.efficiency.table(["engine"])["rows"][0]["values"]["al_s"]["value"] is None


def test_young_window_is_as_long_as_there_is_anything_to_see() -> None:
    house = House()
    house.serve(served(output_tokens=30))
    house.pass_time(10)
    assert house.efficiency.table(["engine"])["seconds"] == 10.0
    assert house.value("output_tokens_per_s") == 3.0


def test_what_is_older_than_the_window_is_forgotten_and_kept_since_the_start() -> None:
    house = House()
    house.serve(served(1.0))
    house.pass_time(30)
    house.serve(served(3.0))
    house.pass_time(29)
    assert house.value("al_s") == pytest.approx(2.0)
    house.pass_time(2)
    assert house.value("al_s") == pytest.approx(3.0)
    house.pass_time(60)
    assert house.value("al_s") is None
    assert house.values()["al_s"]["why_absent"] == "no request was completed in the last 60 s"
    assert house.value("al_s", over="start") == pytest.approx(2.0)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=150))
def test_window_holds_the_requests_of_its_seconds(requests: list[int]) -> None:
    house = House(window_s=20)
    for count in requests:
        house.serve(*[served(output_tokens=1)] * count)
        house.pass_time()
    expected = sum(requests[-20:]) / min(20, len(requests))
    assert house.value("output_tokens_per_s") == (pytest.approx(expected) if expected else None)


def test_long_window_keeps_no_more_than_a_few_totals() -> None:
    house = House(window_s=3600)
    house.pass_time(600)
    assert len(house.sampler._history._kept) <= 61


def test_energy_is_taken_over_the_time_that_the_meters_have_accounted_for() -> None:
    """Accounts close later than the clock: 10 W are 10 W, however late."""
    house = House()
    for second in range(30):
        house.clock.advance(1.0)
        if second >= 10:
            house.energy.post(10.0, "idle")
            house.energy.closed_until = Seconds(house.clock.monotonic() - 8.0)
        house.sampler.tick()
    assert house.value("aec_w") == pytest.approx(10.0)


def test_joules_of_a_token_are_those_of_the_tokens_that_were_served_with_them() -> None:
    house = House()
    for second in range(40):
        house.clock.advance(1.0)
        if second < 30:
            house.serve(served(output_tokens=20))
        if second >= 8:  # what was used in a second is accounted eight seconds later
            house.energy.post(5.0 * (second - 8 < 30))
            house.energy.closed_until = Seconds(house.clock.monotonic() - 8.0)
        house.sampler.tick()
    assert house.value("output_token_j") == pytest.approx(0.25, rel=0.05)


def test_meter_that_ends_takes_its_figures_with_it() -> None:
    house = House()
    for _ in range(10):
        house.energy.post(5.0, "idle")
        house.pass_time()
    assert house.value("aec_w") == pytest.approx(5.0)
    house.pass_time(70, metered=False)
    assert house.value("aec_w") is None
    assert "no meter counted" in house.values()["aec_w"]["why_absent"]


def test_without_any_meter_there_is_no_power() -> None:
    house = House()
    house.serve(served())
    house.pass_time(5, metered=False)
    values = house.values()
    assert [values[key]["value"] for key in ("aec_w", "output_token_j", "request_j", "active_w")] == [None] * 4


def test_restarted_engine_counts_its_steps_from_nought() -> None:
    engine = replica(gauges={"steps_total": 1000})
    house = House(engine)
    house.pass_time()
    house.replicas = [replace(engine, gauges=replica(gauges={"steps_total": 1100}).gauges)]
    house.pass_time()
    gone = replace(engine, state=EngineState.BACKOFF, pid=None, gauges=None)
    house.replicas = [gone]
    house.pass_time()
    house.replicas = [replace(engine, pid=101, restarts=1, gauges=None)]
    house.pass_time()
    house.replicas = [replace(engine, pid=101, restarts=1, gauges=replica(gauges={"steps_total": 5000}).gauges)]
    house.pass_time()
    window = house.sampler.sampled().window
    assert window is not None
    assert window.engines["demo-int4"].steps == 100 + 5000
    assert window.engines["demo-int4"].steps_s == 3.0
    assert window.engines["demo-int4"].up_s == 4.0


def test_steps_that_fell_without_a_restart_in_sight_began_again() -> None:
    counts = iter((500, 700, 30))
    house = House(replica(gauges={"steps_total": next(counts)}))
    for count in counts:
        house.replicas = [replica(gauges={"steps_total": count})]
        house.pass_time()
    window = house.sampler.sampled().window
    assert window is not None
    assert window.engines["demo-int4"].steps == 200 + 30


def test_gap_between_ticks_is_unknown_time() -> None:
    house = House()
    house.uses.uses["demo-int4"] = Use(memory_held_bytes=1, memory_allowed_bytes=4)
    house.pass_time(5)
    house.clock.advance(1000.0)
    house.sampler.tick()
    start = house.sampler.sampled().start
    assert start is not None
    assert start.engines["demo-int4"].memory_s == 5.0


def test_given_away_adapter_is_not_counted_twice() -> None:
    house = House()
    json, other = (*INT4[:4], "json"), (*INT4[:4], "other")
    house.serve(record(adapter="json"), record(adapter="other"))
    house.energy.post(3.0, configuration=json)
    house.energy.post(1.0, configuration=other)
    house.pass_time(2)
    house.serve(record(adapter="json"))
    house.caps.adapters._seen["json"] = Seconds(-1e6)
    with house.caps.lock:
        house.caps.adapters("code")
        moved = house.energy.accounts.pop(("cpu", "estimated", *json, "active", "none"))
        house.energy.post(moved / 1e6, configuration=other)
        house.caps.adapters("sql")  # the third name: the oldest must go
    house.pass_time(2)
    window = house.sampler.sampled().window
    assert window is not None
    assert window.metered is not None
    assert {key[4]: sums.requests for key, sums in window.served.items()} == {"other": 3}
    assert dict(window.metered.energy) == {(*other, "active"): 0}  # all was used before the first closed window
