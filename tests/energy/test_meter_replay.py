"""A recorded trace, played against the clock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server.energy import Reading
from server.energy.recorded import RecordedMeter, read_trace
from server.errors import MeterError
from tests.fakes.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(monotonic=1000.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "meter.jsonl"


def write(path: Path, *lines: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def line(t_s: float, joules_total: float, **more: Any) -> dict[str, Any]:
    return {"t_s": t_s, "joules_total": joules_total, **more}


def joules(reading: Reading) -> dict[str, float]:
    return {device.device: device.joules for device in reading.devices}


def test_recording_begins_with_the_first_reading(path: Path, clock: FakeClock) -> None:
    write(path, line(70.0, 5.0), line(71.0, 6.5), line(73.0, 9.0))
    meter = RecordedMeter(path, clock=clock)
    clock.advance(500.0)
    first = meter.read()
    assert (first.at, joules(first)) == (1500.0, {"gpu:0": 5.0})
    clock.advance(0.9)
    assert meter.read() == first
    clock.advance(0.2)
    second = meter.read()
    assert (second.at, joules(second)) == (1501.0, {"gpu:0": 6.5})


def test_gap_in_a_recording_has_no_new_reading(path: Path, clock: FakeClock) -> None:
    write(path, line(0.0, 0.0), line(60.0, 60.0))
    meter = RecordedMeter(path, clock=clock)
    first = meter.read()
    clock.advance(59.0)
    assert meter.read() == first


def test_recording_ends_after_its_last_line(path: Path, clock: FakeClock) -> None:
    write(path, line(0.0, 0.0), line(1.0, 2.0))
    meter = RecordedMeter(path, clock=clock)
    meter.read()
    clock.advance(7.0)
    last = meter.read()
    assert (last.at, joules(last)) == (1001.0, {"gpu:0": 2.0})
    meter.close()
    for _ in range(2):
        with pytest.raises(MeterError, match="has ended"):
            meter.read()


def test_devices_are_played_together_with_what_was_recorded_of_them(path: Path, clock: FakeClock) -> None:
    write(
        path,
        line(0.0, 1.0, device="cpu", scope="estimated", baseline_joules=0.5, by_cpu_time=True, watts=3.0),
        line(0.0, 7.0, device="gpu:1", scope="gpu"),
        line(9.0, 9.0),
    )
    first, second = RecordedMeter(path, clock=clock).read().devices
    assert (first.device, first.scope, first.joules, first.baseline_joules) == ("cpu", "estimated", 1.0, 0.5)
    assert first.by_cpu_time
    assert (second.device, second.scope, second.baseline_joules) == ("gpu:1", "gpu", None)


def test_counter_that_restarts_in_a_recording_goes_on_rising(path: Path, clock: FakeClock) -> None:
    write(
        path, line(0.0, 50.0, baseline_joules=5.0), line(1.0, 2.0, baseline_joules=1.0), line(2.0, 3.0), line(3.0, 3.0)
    )
    meter = RecordedMeter(path, clock=clock)
    totals = []
    for _ in range(3):
        totals.append(joules(meter.read())["gpu:0"])
        clock.advance(1.0)
    assert totals == [50.0, 52.0, 53.0]


def test_lines_at_which_time_runs_backwards_are_left_out(path: Path) -> None:
    write(path, line(5.0, 1.0), line(4.0, 99.0), line(4.5, 1.0, device="cpu"), line(6.0, 2.0))
    assert [(found.t_s, found.device) for found in read_trace(path)] == [(4.5, "cpu"), (5.0, "gpu:0"), (6.0, "gpu:0")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"t_s": 1.0, "joules_total": 1.0}\n\nnonsense\n', "line 3"),
        ('{"t_s": 1.0}\n', "line 1.*joules_total"),
        ('{"t_s": 1.0, "joules_total": -1.0}\n', "never negative"),
        ('{"t_s": NaN, "joules_total": 1.0}\n', "line 1"),
        ("", "is empty"),
    ],
)
def test_bad_recording_is_a_meter_error_that_names_the_line(
    path: Path, clock: FakeClock, content: str, says: str
) -> None:
    path.write_text(content)
    with pytest.raises(MeterError, match=says):
        RecordedMeter(path, clock=clock).read()


def test_recording_that_is_not_there_is_a_meter_error(path: Path, clock: FakeClock) -> None:
    with pytest.raises(MeterError, match="cannot be read"):
        RecordedMeter(path, clock=clock).read()
