"""`wattgate energy replay`: what comes of files, good and bad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.cli import main
from server.energy.attribution import ATTRIBUTIONS
from tests.energy.replaying import meter, replay, request, write

SUMMARY = {
    "meter_joules",
    "attributed_joules",
    "idle_joules",
    "unattributed_joules",
    "other_joules",
    "residual_joules",
    "method",
    "confidence",
    "microjoules",
    "warnings",
}


def test_joules_go_to_the_request_that_ran_and_the_rest_is_idle(tmp_path: Path) -> None:
    answer = replay(tmp_path, [request("a")], meter(100.0, 130.0, 135.0, 140.0, 145.0))
    answer.check_law()
    assert answer.summary.keys() == SUMMARY
    (line,) = answer.requests
    assert line.keys() == {"id", "joules", "prefill_joules", "decode_joules", "microjoules"}
    assert line["joules"] == line["microjoules"] / 1e6 == pytest.approx(line["prefill_joules"] + line["decode_joules"])
    assert 0 < line["joules"] <= 35.0
    assert answer.summary["meter_joules"] == 45.0
    assert answer.summary["idle_joules"] >= 10.0
    assert answer.warnings == {}


def test_lines_stand_in_the_order_of_the_file(tmp_path: Path) -> None:
    lines = [request("late", start_s=14.0), request("early", start_s=10.5), request(7), request(None, start_s=12.0)]
    answer = replay(tmp_path, lines, meter(0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0))
    assert [line["id"] for line in answer.requests] == ["late", "early", 7, None]


def test_readings_every_100_ms_make_windows_of_a_second_and_no_joule_is_lost(tmp_path: Path) -> None:
    readings = meter(*(3.7 * place for place in range(38)), every=0.1)
    answer = replay(tmp_path, [request()], readings)
    answer.check_law()
    assert answer.micro["meter"] == round(3.7e6 * 37)
    assert answer.micro["idle"] > 0, "windows after the request are idle"


def test_twins_use_the_same(tmp_path: Path) -> None:
    answer = replay(tmp_path, [request("a"), request("b", tenant="bob")], meter(0.0, 21.000001, 30.0))
    one, two = answer.requests
    assert abs(one["microjoules"] - two["microjoules"]) <= 2
    answer.check_law()


def test_rejected_request_used_nothing_which_is_known(tmp_path: Path) -> None:
    rejected = request("no", token_times_s=[], outcome="rejected", end_s=None, first_token_s=None)
    answer = replay(tmp_path, [rejected, request("yes")], meter(0.0, 10.0, 20.0, 30.0))
    assert answer.requests[0] == {
        "id": "no", "joules": 0.0, "prefill_joules": 0.0, "decode_joules": 0.0, "microjoules": 0,
    }  # fmt: skip


def test_request_outside_the_meter_is_unknown_not_zero(tmp_path: Path) -> None:
    lines = [
        request("before", start_s=1.0),
        request("in"),
        request("after", start_s=500.0),
        request("half", start_s=12.5),
    ]
    answer = replay(tmp_path, lines, meter(0.0, 10.0, 20.0, 30.0))
    answer.check_law()
    energies = {line["id"]: line["joules"] for line in answer.requests}
    assert energies["before"] is energies["after"] is None
    assert energies["in"] > 0 < energies["half"]
    assert answer.warnings == {"requests_outside_the_meter": 2, "requests_metered_in_part": 1}


def test_answer_that_came_whole_is_spread_over_its_time(tmp_path: Path) -> None:
    whole = request(start_s=10.0, token_times_s=[], first_token_s=None, output_tokens=20, end_s=12.0)
    for field in ("token_times_s", "first_token_s"):
        whole[field] = None
    answer = replay(tmp_path, [whole], meter(0.0, 10.0, 20.0, 25.0))
    answer.check_law()
    assert answer.requests[0]["joules"] == pytest.approx(20.0, abs=5.0)


def test_only_the_named_engine_is_on_the_meter(tmp_path: Path) -> None:
    lines = [request("mine", engine="x"), request("unnamed"), request("other", engine="y")]
    answer = replay(tmp_path, lines, meter(0.0, 10.0, 20.0), "--engine", "x")
    answer.check_law()
    mine, unnamed, other = (line["joules"] for line in answer.requests)
    assert mine > 0 < unnamed
    assert other is None
    assert answer.warnings == {"requests_of_other_engines": 1}


def test_engines_without_a_name_given_share_the_meter(tmp_path: Path) -> None:
    lines = [request("a", engine="x"), request("b", engine="y"), request("c")]
    answer = replay(tmp_path, lines, meter(0.0, 10.0, 20.0))
    answer.check_law()
    assert all(line["joules"] > 0 for line in answer.requests)


def test_devices_add_up(tmp_path: Path) -> None:
    one = [line | {"device": "gpu:0"} for line in meter(0.0, 10.0, 20.0)]
    two = [line | {"device": "gpu:1"} for line in meter(5.0, 6.0, 9.0, begin=10.25)]
    answer = replay(tmp_path, [request()], [*one, *two])
    answer.check_law()
    assert answer.micro["meter"] == 24_000_000


@pytest.mark.parametrize("method", sorted(ATTRIBUTIONS))
def test_every_method_may_be_asked_for(tmp_path: Path, method: str) -> None:
    readings = meter(*(3.7 * place for place in range(200)), every=0.1)
    lines = [request(str(place), start_s=10.0 + place) for place in range(15)]
    answer = replay(tmp_path, lines, readings, "--method", method)
    answer.check_law()
    assert answer.summary["method"] in ATTRIBUTIONS


def test_gap_of_the_meter_is_one_window(tmp_path: Path) -> None:
    readings = [*meter(0.0, 1.0, 2.0, 3.0, every=0.1), *meter(53.0, 54.0, 55.0, begin=40.0, every=0.1)]
    answer = replay(tmp_path, [request(start_s=20.0)], readings)
    answer.check_law()
    assert answer.micro["meter"] == 55_000_000
    assert answer.requests[0]["joules"] > 0
    assert answer.warnings == {"meter_gaps": 1}


def test_after_a_gap_of_more_than_a_minute_nobody_is_charged(tmp_path: Path) -> None:
    readings = [*meter(0.0, 1.0, 2.0), *meter(500.0, 501.0, begin=80.0)]
    answer = replay(tmp_path, [request("in", start_s=20.0), request("across", start_s=79.5)], readings)
    answer.check_law()
    assert answer.micro["unattributed"] == 498_000_000
    assert answer.requests[0]["joules"] is None
    assert answer.requests[1]["joules"] > 0
    assert answer.warnings == {"meter_gaps": 1, "requests_outside_the_meter": 1, "requests_metered_in_part": 1}


def test_counter_that_was_set_back_loses_only_what_it_counted_meanwhile(tmp_path: Path) -> None:
    readings = meter(100.0, 101.0, 102.0, 1.0, 2.0, 4.0)
    answer = replay(tmp_path, [request("across", start_s=11.5), request("after", start_s=13.2)], readings)
    answer.check_law()
    assert answer.micro["meter"] == 5_000_000
    assert answer.warnings == {"meter_resets": 1, "requests_metered_in_part": 1}


def test_reading_that_goes_back_in_time_is_left_out(tmp_path: Path) -> None:
    readings = meter(0.0, 10.0, 20.0, 30.0)
    stray = [{"t_s": 10.5, "joules_total": 12.0}, {"t_s": 12.0, "joules_total": 25.0}]
    answer = replay(tmp_path, [request()], [*readings[:3], *stray, readings[3]])
    answer.check_law()
    assert answer.micro["meter"] == 30_000_000
    assert answer.warnings == {"meter_times_not_rising": 2}


def test_meter_lines_that_say_nothing_are_left_out(tmp_path: Path) -> None:
    odd: list[Any] = [{}, {"t_s": 11.5}, {"t_s": "x", "joules_total": 1.0}, {"t_s": 11.6, "joules_total": -4.0}]
    readings = meter(0.0, 10.0, 20.0)
    answer = replay(tmp_path, [request()], [*readings[:2], *odd, readings[2]])
    answer.check_law()
    assert answer.micro["meter"] == 20_000_000
    assert answer.warnings == {"meter_lines_ignored": 4, "values_ignored": 2}


@pytest.mark.parametrize("readings", [[], meter(5.0)], ids=["none", "one"])
def test_without_a_window_all_is_unknown(tmp_path: Path, readings: list[Any]) -> None:
    answer = replay(tmp_path, [request()], readings)
    answer.check_law()
    assert answer.requests[0]["joules"] is None
    assert answer.summary["meter_joules"] is None
    assert answer.micro["meter"] == 0
    assert answer.warnings == {"requests_outside_the_meter": 1}


def test_without_requests_all_is_idle(tmp_path: Path) -> None:
    answer = replay(tmp_path, [], meter(0.0, 10.0, 20.0))
    assert answer.requests == []
    assert answer.micro == {"meter": 20_000_000, "attributed": 0, "idle": 20_000_000, "unattributed": 0, "other": 0}


def test_same_id_twice_is_two_requests(tmp_path: Path) -> None:
    answer = replay(tmp_path, [request("a"), request("a", start_s=11.0)], meter(0.0, 10.0, 20.0, 30.0))
    answer.check_law()
    assert [line["id"] for line in answer.requests] == ["a", "a"]
    assert all(line["joules"] > 0 for line in answer.requests)
    assert answer.warnings == {"duplicate_ids": 1}


@pytest.mark.parametrize(
    ("odd", "warnings"),
    [
        ({"token_times_s": [9.0, 10.5, 11.0]}, {"requests_with_tokens_before_start": 1}),
        ({"token_times_s": [11.0, 10.5, 10.8]}, {"token_times_not_rising": 1, "requests_that_end_too_early": 1}),
        ({"token_times_s": [10.5, None, "x", 10.8]}, {"values_ignored": 2}),
        ({"end_s": 9.0}, {"requests_that_end_too_early": 1}),
        ({"end_s": None}, {"requests_without_end": 1}),
        ({"tenant": None}, {"requests_without_tenant": 1}),
        ({"tenant": 5}, {"requests_without_tenant": 1, "values_ignored": 1}),
        ({"prompt_tokens": -5, "output_tokens": 2.5}, {"values_ignored": 2}),
        ({"prompt_tokens": 10, "cached_tokens": 20}, {}),
        ({"outcome": "exploded"}, {"outcomes_unknown": 1}),
        ({"outcome": "cancelled", "adapter": "json", "engine": None}, {}),
    ],
)
def test_request_with_something_odd_is_still_charged(
    tmp_path: Path, odd: dict[str, Any], warnings: dict[str, int]
) -> None:
    answer = replay(
        tmp_path, [request("odd", **odd), request("usual", start_s=10.2)], meter(0.0, 10.0, 20.0, 30.0, 40.0)
    )
    answer.check_law()
    assert answer.requests[0]["joules"] > 0
    assert answer.warnings == warnings


def test_request_without_a_beginning_is_nowhere(tmp_path: Path) -> None:
    answer = replay(tmp_path, [{"id": "lost"}, {"tenant": "a"}], meter(0.0, 10.0, 20.0))
    assert [line["joules"] for line in answer.requests] == [None, None]
    assert answer.warnings["requests_without_start"] == 2


@pytest.mark.parametrize("line", ["[1]", '"x"', "17", "null", "{", "nonsense", '{"a": NaN}', "\x00"])
@pytest.mark.parametrize("which", ["requests", "meter"])
def test_line_that_is_no_object_is_refused_by_file_and_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], which: str, line: str
) -> None:
    good: dict[str, list[Any]] = {"requests": [request()], "meter": meter(0.0, 1.0)}
    good[which].append(line)
    files = write(tmp_path, good["requests"], good["meter"])
    assert main(["energy", "replay", *files, "--out", str(tmp_path / "out.jsonl")]) == 2
    assert f"{which}.jsonl, line {len(good[which])} is no JSON" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


def test_empty_lines_and_a_byte_order_mark_are_no_lines(tmp_path: Path) -> None:
    answer = replay(tmp_path, ["\ufeff" + json.dumps(request()), "", "  "], meter(0.0, 10.0, 20.0))
    assert len(answer.requests) == 1


def test_file_that_is_not_there_or_cannot_be_written_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = write(tmp_path, [], [])
    gone = str(tmp_path / "gone.jsonl")
    assert main(["energy", "replay", *files, "--meter", gone, "--out", "-"]) == 2
    assert "gone.jsonl cannot be read (No such file or directory)" in capsys.readouterr().err
    assert main(["energy", "replay", *files, "--out", str(tmp_path)]) == 2
    assert "cannot be written (Is a directory)" in capsys.readouterr().err


def test_warnings_are_said_on_the_terminal_and_the_answer_may_go_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = write(tmp_path, [request(tenant=None)], meter(0.0, 10.0, 20.0))
    assert main(["energy", "replay", *files, "--out", "-"]) == 0
    said = capsys.readouterr()
    assert "requests without tenant: 1" in said.err
    assert "summary" in json.loads(said.out.splitlines()[-1])


ODD = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
)
NEAR = st.floats(-1.0, 9.0)
TIMES = st.lists(NEAR, max_size=8).map(sorted) | st.lists(NEAR | ODD, max_size=5)
NAMES = st.sampled_from(["a", "b", None]) | ODD
TOKENS = st.none() | st.integers(0, 500) | ODD
REQUEST = st.fixed_dictionaries(
    {},
    optional={
        "id": NAMES,
        "tenant": NAMES,
        "adapter": NAMES,
        "engine": NAMES,
        "prompt_tokens": TOKENS,
        "cached_tokens": TOKENS,
        "output_tokens": TOKENS,
        "start_s": NEAR | NEAR | NEAR | ODD,
        "first_token_s": NEAR | ODD,
        "token_times_s": TIMES | TIMES | ODD,
        "end_s": NEAR | NEAR | ODD,
        "outcome": st.sampled_from(["ok", "cancelled", "rejected", "odd"]) | ODD,
    },
)
READING = st.fixed_dictionaries(
    {"t_s": NEAR | NEAR | NEAR | st.floats(0.0, 200.0) | ODD, "joules_total": st.floats(0.0, 1e4) | ODD},
    optional={"device": NAMES},
)
READINGS = st.lists(READING, max_size=12) | st.lists(
    st.tuples(st.floats(0.01, 3.0), st.floats(0.0, 50.0)), max_size=20
).map(lambda steps: [
    {"t_s": sum(step for step, _ in steps[: n + 1]), "joules_total": sum(joules for _, joules in steps[: n + 1])}
    for n in range(len(steps))
])  # fmt: skip


def _as_json(lines: list[Any]) -> list[Any]:
    """Without what JSON has no word for."""
    return json.loads(json.dumps(lines).replace("NaN", "null").replace("-Infinity", "null").replace("Infinity", "null"))  # type: ignore[no-any-return]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(REQUEST, max_size=6), readings=READINGS, engine=st.sampled_from([None, "a"]))
def test_whatever_the_files_say_everybody_gets_a_line_and_the_sum_is_the_meter(
    tmp_path: Path, requests: list[Any], readings: list[Any], engine: str | None
) -> None:
    more = [] if engine is None else ["--engine", engine]
    answer = replay(tmp_path, _as_json(requests), _as_json(readings), *more)
    assert len(answer.requests) == len(requests)
    answer.check_law()
