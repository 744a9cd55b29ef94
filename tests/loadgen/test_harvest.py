"""What several processes bring in is one result that says how it came about."""

from __future__ import annotations

import json
from typing import Any

import pytest
from planned import plan
from planned import prepared as prepared_with
from rich.console import Console

from loadgen._gateway import Prepared
from loadgen._harvest import Harvest, Joined, Outcome, run_counts, summary_of
from loadgen._histogram import Histogram
from loadgen._plan import Plan
from loadgen._prompts import Calibration
from loadgen._record import Record
from loadgen._report import generator_lines, run_table, why_not_lines
from loadgen._run import Run, Share

OPEN = ("--rate", "10", "--arrivals", "constant", "--salt", "s")


def prepared(*models: str) -> Prepared:
    return prepared_with(*models, calibration=Calibration(fixed_tokens=7.0, tokens_a_word=2.0))


def record(index: int, scheduled_s: float, *, late_s: float = 0.001, **more: Any) -> Record:
    sent_s = scheduled_s + late_s
    token_s = tuple(sent_s + 0.2 + 0.05 * number for number in range(4))
    values: dict[str, Any] = {
        "index": index,
        "model": "a",
        "served_by": "a",
        "warm_up": scheduled_s < 1.0,
        "prompt_tokens": 20,
        "prompt_tokens_wanted": 16,
        "cached_tokens": 5,
        "output_tokens": 4,
        "finish_reason": "length",
        "error": None,
        "message": None,
        "receive_lag_s": 0.0,
        "reads": 6,
    }
    times = {"scheduled_s": scheduled_s, "sent_s": sent_s, "token_s": token_s, "ended_s": token_s[-1]}
    return Record(**{**values, **times, **more})


def harvest(records: list[Record], **more: Any) -> Harvest:
    """Ten requests a second for five seconds, the first of them warm-up."""
    lags = Histogram.of([0.0005] * 1000)
    return Harvest(records=records, **{"steady_until_s": 5.0, "receive_lag": lags, "processes": 1, **more})


def outcome(of: Plan, found: Harvest, notes: list[str] | None = None) -> Outcome:
    return summary_of(of, prepared("a"), found, joined=Joined(), notes=notes or [], started="2026-01-01T00:00:00+00:00")


def sent_in_time(number: int = 50) -> list[Record]:
    return [record(index, index / 10) for index in range(number)]


@pytest.fixture
def open_loop() -> Plan:
    return plan(*OPEN, "--warm-up", "1", "--slo", "ttft=300ms", run_time=5.0)


def test_processes_add_up(open_loop: Plan) -> None:
    runs = [
        Run(open_loop, prepared("a"), share=Share(index=at, of=2), clock=lambda: 7.0, origin=7.0) for at in range(2)
    ]
    found = Harvest()
    for at, run in enumerate(runs):
        run.dropped, run.unfinished, run.steady_until_s = 1, 2, 5.0 - at
        run.receive_lag.histogram.add(0.5)
        found.add_counts(json.loads(json.dumps(run_counts(run))))
    assert (found.dropped, found.unfinished, found.steady_until_s, found.processes) == (2, 4, 4.0, 2)
    assert found.receive_lag == Histogram.of([0.5, 0.5])
    assert (found.origin, found.schedule_hash) == (7.0, runs[0].schedule_hash)


def test_processes_that_share_no_clock_have_no_common_start() -> None:
    assert Harvest(origins={1.0, 2.0}).origin is None


def test_rate_that_was_reached_is_valid(open_loop: Plan) -> None:
    summary = outcome(open_loop, harvest(sent_in_time())).summary
    assert summary["offered_per_s"] == summary["achieved_per_s"] == pytest.approx(10.0)
    assert summary["validity"]["rate"] == {"verdict": "valid", "because": None}
    assert summary["schedule_lateness_s"]["max"] == pytest.approx(0.001)
    assert summary["totals"]["goodput"]["attainment"] == 1.0


def test_rate_that_the_generator_could_not_send_is_invalid_and_says_what_it_could(open_loop: Plan) -> None:
    behind = [record(index, index / 10, late_s=index / 20) for index in range(50)]
    found = outcome(open_loop, harvest(behind))
    assert found.summary["validity"]["rate"]["verdict"] == "invalid"
    assert found.summary["achieved_per_s"] == pytest.approx(40 / (4.9 + 2.45 - 1.0))
    assert any("6.299 requests/s were sent of 10 that were due" in note for note in found.notes)
    assert found.summary["models"][0]["validity"]["time_to_first_token_s"]["verdict"] == "n/a"
    assert found.summary["models"][0]["validity"]["time_to_first_token_from_sent_s"]["verdict"] == "valid"


def test_dropped_requests_count_against_the_rate_and_the_goodput(open_loop: Plan) -> None:
    found = outcome(open_loop, harvest(sent_in_time()[:40], dropped=10))
    assert found.summary["achieved_per_s"] == pytest.approx(7.5)
    assert found.summary["validity"]["rate"]["verdict"] == "invalid"
    assert found.summary["totals"]["goodput"]["attainment"] == pytest.approx(30 / 40)
    assert any("--max-in-flight" in note for note in found.notes)


def test_requests_that_the_end_cut_off_are_said_and_not_good(open_loop: Plan) -> None:
    found = outcome(open_loop, harvest(sent_in_time(), unfinished=10))
    assert found.summary["totals"]["goodput"]["attainment"] == pytest.approx(40 / 50)
    assert any("10 requests were cut off" in note for note in found.notes)


def test_closed_loop_claims_no_rate() -> None:
    summary = outcome(plan("--salt", "s"), harvest(sent_in_time())).summary
    assert summary["validity"]["rate"]["verdict"] == "n/a"
    assert (summary["offered_per_s"], summary["schedule_lateness_s"], summary["slo"]) == (None, None, None)
    assert summary["totals"]["goodput"] is None


def test_summary_says_where_it_comes_from_and_is_plain_json(open_loop: Plan) -> None:
    summary = json.loads(json.dumps(outcome(open_loop, harvest(sent_in_time())).summary))
    assert summary["schema"] == 2
    assert summary["partial"] is False
    assert summary["cache"] == {"salt": "s", "cached_tokens": 200, "prompt_tokens": 800, "cached_share": 0.25}
    assert summary["prompt_length_error"]["ratio"] == pytest.approx(20 / 16)
    assert summary["slo"] == {"ttft": 0.3}
    assert (summary["engines"], summary["device"], summary["energy"]) == (None, None, None)


def test_answers_that_the_slo_cannot_judge_are_said(open_loop: Plan) -> None:
    unstreamed = [record(index, index / 10, streamed=False, token_s=()) for index in range(50)]
    assert any("no goodput" in note for note in outcome(open_loop, harvest(unstreamed)).notes)


@pytest.mark.parametrize("slo", ["", "ttft=1ms"])
def test_terminal_shows_the_run_in_80_columns_and_why_a_figure_is_missing(slo: str) -> None:
    of = plan(*OPEN, "--warm-up", "1", "--slo", slo, run_time=5.0)
    unstamped = [record(at, at / 10, receive_lag_s=None, served_by="organisation/model:variant") for at in range(50)]
    found = outcome(of, harvest(unstamped, receive_lag=Histogram.of([0.01] * 700)))
    console = Console(width=80, record=True)
    console.print(run_table(found.figures, None))
    for line in (*generator_lines(found.summary), *why_not_lines(found.figures)):
        console.print(line)
    text = console.export_text()
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "n/a: ITL of a. Answers were read late" in text
    assert "Open loop: 10.00 requests/s due, 10.00 sent" in text
    assert ("good" in text) == bool(slo)
