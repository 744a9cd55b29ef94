"""Figures that the generator spoiled are not given as figures of the server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from loadgen._histogram import Histogram
from loadgen._record import Record
from loadgen._summary import Window, figures_of
from loadgen._validity import Lags, judge_rate

WINDOW = Window(start_s=0.0, end_s=100.0)


def streams(number: int = 20, **more: Any) -> list[Record]:
    """First token after 200 ms, then one every 20 ms; ten tokens."""
    values: dict[str, Any] = {
        "model": "demo",
        "served_by": "demo",
        "warm_up": False,
        "prompt_tokens": 10,
        "cached_tokens": None,
        "output_tokens": 10,
        "finish_reason": "length",
        "error": None,
        "message": None,
        "receive_lag_s": 0.0,
        "reads": 12,
        **more,
    }
    return [
        Record(
            **{
                "index": at,
                "scheduled_s": float(at),
                "sent_s": float(at),
                "token_s": tuple(at + 0.2 + 0.02 * token for token in range(10)),
                "ended_s": at + 0.4,
                **values,
            }
        )
        for at in range(number)
    ]


def merged() -> list[Record]:
    """The third and the fourth token come in one read."""
    return [replace(one, token_s=(*one.token_s[:2], one.token_s[3], *one.token_s[3:])) for one in streams()]


def verdicts(records: list[Record], *, late_s: float = 0.0, receive_s: float | None = 0.0) -> dict[str, str]:
    receive = Histogram.of([] if receive_s is None else [receive_s] * 1000)
    late = [replace(record, scheduled_s=record.scheduled_s - late_s) for record in records]
    (figures,) = figures_of(records, WINDOW, lags=Lags.of(late, receive=receive, open_loop=True))
    return {name: verdict.verdict for name, verdict in figures.validity.items()}


def test_quick_generator_leaves_everything_valid() -> None:
    assert set(verdicts(streams(), late_s=0.001, receive_s=0.001).values()) == {"valid"}


def test_slow_reading_spoils_gaps_first() -> None:
    unstamped = streams(receive_lag_s=None)
    found = verdicts(unstamped, receive_s=0.005)
    assert {name for name, verdict in found.items() if verdict == "n/a"} == {
        "inter_token_latency_s",
        "inter_chunk_latency_s",
    }
    found = verdicts(unstamped, receive_s=0.03)
    assert found["time_to_first_token_s"] == found["time_per_output_token_s"] == "n/a"
    assert found["end_to_end_s"] == "valid"


def test_slow_reading_does_not_move_arrivals_that_the_kernel_stamped() -> None:
    assert set(verdicts(streams(), receive_s=0.5).values()) == {"valid"}


def test_gaps_at_a_read_of_several_tokens_are_those_within_it_and_the_one_before() -> None:
    assert Lags.of(merged(), receive=Histogram(), open_loop=False).merged_share == pytest.approx(2 / 9)
    assert Lags.of(streams(), receive=Histogram(), open_loop=False).merged_share == 0.0


def test_slow_reading_that_merged_arrivals_spoils_their_gaps_whoever_stamped_them() -> None:
    found = verdicts(merged(), receive_s=0.005)
    assert found["inter_token_latency_s"] == "n/a"
    assert found["time_per_output_token_s"] == "valid"


def test_server_that_sends_several_events_at_once_to_a_quick_reader_is_measured() -> None:
    assert verdicts(merged(), receive_s=0.001)["inter_token_latency_s"] == "valid"


def test_late_sending_spoils_only_what_counts_from_the_schedule() -> None:
    found = verdicts(streams(), late_s=0.05)
    assert {name for name, verdict in found.items() if verdict == "n/a"} == {"time_to_first_token_s", "end_to_end_s"}


def test_lag_that_was_not_measured_is_no_lag_of_zero() -> None:
    assert set(verdicts(streams(), receive_s=None).values()) == {"n/a"}


@pytest.mark.parametrize(
    ("records", "says"),
    [
        (streams(output_tokens=None), "no usage"),
        (streams(streamed=False, token_s=()), "not streamed"),
        (streams(error="truncated"), "No answer was whole"),
        (streams(token_s=(0.5,), output_tokens=1), "long enough"),
    ],
)
def test_reason_of_a_missing_figure_is_said(records: list[Record], says: str) -> None:
    lags = Lags.of(records, receive=Histogram.of([0.0]), open_loop=False)
    (figures,) = figures_of(records, WINDOW, lags=lags)
    verdict = figures.validity["inter_token_latency_s"]
    assert verdict.verdict == "n/a"
    assert verdict.because is not None
    assert says in verdict.because


@pytest.mark.parametrize(
    ("offered", "achieved", "verdict"),
    [
        (10.0, 9.81, "valid"),
        (10.0, 9.79, "invalid"),
        (10.0, 10.3, "invalid"),
        (None, None, "n/a"),
        (0.0, 0.0, "n/a"),
    ],
)
def test_rate_stands_only_if_it_was_reached_within_two_percent(
    offered: float | None, achieved: float | None, verdict: str
) -> None:
    assert judge_rate(offered_per_s=offered, achieved_per_s=achieved).verdict == verdict
