"""Percentiles and their floors, figures per model, joules per configuration."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import scripted_server

from loadgen._energy import parse_counters, settled_counters
from loadgen._errors import LoadError
from loadgen._histogram import Histogram
from loadgen._record import Record
from loadgen._report import joules_by_id
from loadgen._slo import Slo
from loadgen._statistics import FLOORS, Distribution, percentile
from loadgen._summary import Goodput, Window, drift_of, figures_of, histograms_of, lateness_of


def at_least_two_beyond(percent: float, samples: int) -> float:
    """Probability that two or more of `samples` lie beyond the percentile."""
    share = percent / 100
    return 1 - share**samples - samples * (1 - share) * share ** (samples - 1)


@pytest.mark.parametrize("percent", sorted(FLOORS))
def test_floor_is_the_fewest_samples_that_carry_the_tail_with_99_percent_confidence(percent: float) -> None:
    assert at_least_two_beyond(percent, FLOORS[percent]) >= 0.99
    assert at_least_two_beyond(percent, FLOORS[percent] - 1) < 0.99


@pytest.mark.parametrize("percent", sorted(FLOORS))
def test_percentile_is_given_from_its_floor_on(percent: float) -> None:
    values = [float(number) for number in range(1, FLOORS[percent] + 1)]
    assert percentile(values[:-1], percent) is None
    assert percentile(values, percent) == math.ceil(round(percent / 100 * len(values), 9))


def test_percentile_of_known_values_is_the_nearest_rank() -> None:
    values = [float(number) for number in range(1, 201)]
    assert percentile(values, 50.0) == 100.0
    assert percentile(values, 95.0) == 190.0


@given(st.lists(st.floats(0, 1e6), min_size=130, max_size=400))
def test_percentiles_are_observed_values_in_order(values: list[float]) -> None:
    found = Distribution.of(values)
    assert found.p50 in values
    assert found.p95 in values
    assert found.p50 is not None
    assert found.p95 is not None
    assert found.max is not None
    assert found.p50 <= found.p95 <= found.max
    assert sum(value <= found.p95 for value in values) >= 0.95 * len(values)


def test_distribution_of_nothing_says_nothing() -> None:
    nothing = Distribution(samples=0, mean=None, p50=None, p90=None, p95=None, p99=None, p99_9=None, max=None)
    assert Distribution.of([]) == Distribution.of_histogram(Histogram()) == nothing


@given(st.lists(st.floats(1e-6, 1e3), max_size=700))
def test_distribution_of_counted_values_has_the_same_floors_and_nearly_the_same_percentiles(
    values: list[float],
) -> None:
    exact, counted = Distribution.of(values), Distribution.of_histogram(Histogram.of(values))
    for name in ("mean", "p50", "p90", "p95", "p99", "p99_9", "max"):
        expected = getattr(exact, name)
        assert getattr(counted, name) == (None if expected is None else pytest.approx(expected, rel=0.01))


def chat(index: int, sent_s: float, *, tokens: int = 4, model: str = "demo:int8", **more: Any) -> Record:
    """A token every 0.1 s, the first 0.2 s after sending."""
    token_s = tuple(sent_s + 0.2 + 0.1 * number for number in range(tokens))
    values: dict[str, Any] = {
        "index": index,
        "model": model,
        "served_by": model,
        "warm_up": False,
        "scheduled_s": sent_s,
        "sent_s": sent_s,
        "token_s": token_s,
        "ended_s": token_s[-1],
        "prompt_tokens": 10,
        "cached_tokens": None,
        "output_tokens": tokens,
        "finish_reason": "length",
        "error": None,
        "message": None,
    }
    return Record(**{**values, **more})


def test_figures_hold_exactly_what_the_records_say() -> None:
    records = [chat(index, float(index)) for index in range(20)]
    (figures,) = figures_of(records, Window(start_s=0.0, end_s=20.0))
    assert (figures.model, figures.requests, figures.ok, figures.errors) == ("demo:int8", 20, 20, {})
    assert figures.time_to_first_token_s.p50 == pytest.approx(0.2)
    assert figures.time_to_first_token_s.p95 is None
    assert figures.inter_token_latency_s.samples == 60
    assert figures.inter_token_latency_s.p50 == pytest.approx(0.1)
    assert figures.inter_token_latency_exact
    assert figures.time_per_output_token_s.mean == pytest.approx(0.1)
    assert figures.end_to_end_s.max == pytest.approx(0.5)
    assert (figures.prompt_tokens, figures.output_tokens, figures.cached_tokens) == (200, 80, None)
    assert figures.output_tokens_per_s == pytest.approx(4.0)
    assert figures.requests_per_s == pytest.approx(1.0)
    assert figures.served_by == {"demo:int8": 20}


def test_failures_count_beside_the_latencies_and_never_in_them() -> None:
    failed = chat(1, 1.0, tokens=2, error="truncated", message="cut", ended_s=90.0)
    (figures,) = figures_of([chat(0, 0.0), failed], Window(start_s=0.0, end_s=10.0))
    assert (figures.requests, figures.ok, figures.errors) == (2, 1, {"truncated": 1})
    assert figures.first_message == "cut"
    assert figures.end_to_end_s.max == pytest.approx(0.5)
    assert figures.output_tokens == 4


def test_warm_up_is_in_no_figure_but_its_tokens_within_the_window_are_throughput() -> None:
    warm = chat(0, 0.5, warm_up=True)
    (figures,) = figures_of([warm, chat(1, 2.0)], Window(start_s=0.85, end_s=2.85))
    assert (figures.requests, figures.warm_up_requests) == (1, 1)
    assert figures.time_to_first_token_s.samples == 1
    # Of the warm-up the tokens at 0.9 and 1.0 fall into the window, and all four of the other.
    assert figures.output_tokens_per_s == pytest.approx((2 + 4) / 2)


def test_models_are_kept_apart_in_the_order_of_their_first_request() -> None:
    records = [chat(1, 1.0, model="b"), chat(0, 0.0, model="a"), chat(2, 2.0, model="b")]
    figures = figures_of(records, Window(start_s=0.0, end_s=3.0))
    assert [(of.model, of.requests) for of in figures] == [("a", 1), ("b", 2)]


def test_one_answer_without_usage_leaves_the_tokens_a_second_unknown() -> None:
    (figures,) = figures_of([chat(0, 0.0), chat(1, 1.0, output_tokens=None)], Window(start_s=0.0, end_s=10.0))
    assert figures.output_tokens_per_s is None
    assert figures.without_usage == 1
    assert figures.inter_token_latency_s.samples == 3
    assert figures.inter_chunk_latency_s.samples == 6
    assert figures.inter_token_latency_basis == {"one_token_a_chunk": 1, "unknown": 1}


def test_embedding_has_no_first_token_and_no_gap_and_lacks_nothing_by_it() -> None:
    embedding = {"endpoint": "/v1/embeddings", "streamed": False, "token_s": (), "output_tokens": None, "ended_s": 0.5}
    (figures,) = figures_of([chat(0, 0.0, **embedding)], Window(start_s=0.0, end_s=1.0))
    assert (figures.ok, figures.without_usage, figures.prompt_tokens) == (1, 0, 10)
    assert figures.time_to_first_token_s.samples == figures.inter_token_latency_s.samples == 0
    assert figures.end_to_end_s.max == 0.5
    assert figures.output_tokens_per_s is None


def test_whole_answer_counts_its_tokens_when_it_ends() -> None:
    whole = chat(0, 0.0, streamed=False, token_s=(), ended_s=0.5)
    (figures,) = figures_of([whole], Window(start_s=0.25, end_s=2.25))
    assert figures.output_tokens_per_s == 2.0
    assert figures.time_per_output_token_s.samples == 0


def test_goodput_counts_only_what_keeps_every_bound_and_failures_against_it() -> None:
    slow, failed = chat(1, 1.0, scheduled_s=0.0), chat(2, 2.0, error="http_429", message="later")
    records = [chat(0, 0.0), slow, failed, chat(3, 3.0)]
    (figures,) = figures_of(records, Window(start_s=0.0, end_s=10.0), slo=Slo.parse("ttft=250ms,itl=110ms"))
    assert figures.goodput == Goodput(requests_per_s=0.2, output_tokens_per_s=0.8, attainment=0.5)


def test_goodput_is_unknown_where_an_answer_cannot_be_judged() -> None:
    records = [chat(0, 0.0), chat(1, 1.0, output_tokens=None)]
    (figures,) = figures_of(records, Window(start_s=0.0, end_s=10.0), slo=Slo.parse("tpot=1s"))
    assert figures.goodput == Goodput(requests_per_s=None, output_tokens_per_s=None, attainment=None)


def test_stall_of_the_server_is_seconds_in_the_open_loop_tail() -> None:
    """Due every 10 ms; from 2 s on nothing is answered for 3 s, then everything at once."""

    def due(index: int) -> Record:
        at = index / 100
        first = at + 0.02 if at < 2.0 or at >= 5.0 else 5.02
        return chat(index, at, tokens=1, token_s=(first,), ended_s=first)

    (figures,) = figures_of([due(index) for index in range(1000)], Window(start_s=0.0, end_s=10.0))
    assert figures.time_to_first_token_s.p50 == pytest.approx(0.02)
    assert figures.time_to_first_token_s.p99 == pytest.approx(2.91, abs=0.02)


def test_drift_compares_the_halves_of_the_window() -> None:
    slower = [chat(at, float(at), token_s=(at + 0.2, at + 0.4 + 0.2 * (at >= 12)), output_tokens=2) for at in range(24)]
    assert drift_of(slower, Window(start_s=0.0, end_s=24.0)) == pytest.approx(2.0)
    assert drift_of(slower[:8], Window(start_s=0.0, end_s=8.0)) is None


def test_histograms_hold_the_whole_distribution_of_whole_answers_after_the_warm_up() -> None:
    records = [chat(0, 0.0, warm_up=True), chat(1, 1.0), chat(2, 2.0, error="truncated")]
    found = histograms_of(records)
    assert {name: histogram.count for name, histogram in found.items()} == {
        "time_to_first_token_s": 1,
        "time_to_first_token_from_sent_s": 1,
        "inter_token_latency_s": 3,
        "inter_chunk_latency_s": 3,
        "time_per_output_token_s": 1,
        "end_to_end_s": 1,
        "end_to_end_from_sent_s": 1,
    }


def test_window_of_no_length_gives_no_rate() -> None:
    (figures,) = figures_of([chat(0, 0.0)], Window(start_s=1.0, end_s=0.5))
    assert figures.output_tokens_per_s is None


def test_lateness_is_the_generators_own() -> None:
    found = lateness_of([chat(0, 1.0, scheduled_s=0.75)])
    assert found.max == pytest.approx(0.25)


def counters(joules: float, tokens: int, idle_microjoules: int = 0) -> dict[str, Any]:
    active = round(joules * 1e6)
    return {
        "configurations": [
            {
                "engine": "e",
                "model": "demo",
                "variant": "int4",
                "adapter": "json",
                "active_joules": joules,
                "prompt_tokens": 10,
                "output_tokens": tokens,
            }
        ],
        "devices": [{"device": "cpu", "scope": "estimated", "joules": joules}],
        "accounts": {"active": joules, "idle": idle_microjoules / 1e6},
        "microjoules": {
            "devices": {"cpu": active + idle_microjoules},
            "accounts": {"active": active, "idle": idle_microjoules},
        },
        "method": "token_share",
        "confidence": 0.3,
        "closed_until_age_s": 0.5,
        "pending_requests": 0,
    }


def test_joules_are_the_difference_of_two_readings_by_public_id() -> None:
    report = parse_counters(counters(5.0, 200, 7)).since(parse_counters(counters(2.0, 50)))
    assert joules_by_id(report) == {"json:int4": pytest.approx(0.02)}
    assert report.account_joules["idle"] == pytest.approx(7e-6)
    assert report.scopes == ("estimated",)


def test_configuration_that_did_nothing_is_not_in_the_difference() -> None:
    assert parse_counters(counters(2.0, 50)).since(parse_counters(counters(2.0, 50))).uses == ()


def test_residual_is_exact_in_microjoules() -> None:
    data = counters(5.0, 1, 3)
    assert parse_counters(data).residual_microjoules == 0
    data["microjoules"]["accounts"]["idle"] = 4
    assert parse_counters(data).residual_microjoules == 1


def test_energy_of_an_unknown_form_is_refused() -> None:
    with pytest.raises(LoadError, match="unknown form"):
        parse_counters({"configurations": [{}]})


def test_counters_have_settled_once_the_attributed_time_reaches_the_end_of_the_run() -> None:
    with scripted_server("demo:bf16") as server:
        _, settled = settled_counters(server.url, ended_at=9.0, wait_s=0.0, clock=lambda: 10.0)
        assert settled
        server.pending_requests = 1
        now = [10.0]

        def sleep(seconds: float) -> None:
            now[0] += seconds
            server.pending_requests = 0

        _, settled = settled_counters(server.url, ended_at=9.0, wait_s=5.0, clock=lambda: now[0], sleep=sleep)
        assert settled
        assert now[0] > 10.0


def test_counters_that_do_not_settle_say_so_after_a_while() -> None:
    with scripted_server("demo:bf16") as server:
        server.pending_requests = 1
        now = [10.0]

        def sleep(seconds: float) -> None:
            now[0] += seconds

        _, settled = settled_counters(server.url, ended_at=9.0, wait_s=1.0, clock=lambda: now[0], sleep=sleep)
        assert not settled
        assert now[0] == pytest.approx(11.0)
