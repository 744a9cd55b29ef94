"""Batches become counts, by the definitions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config import TelemetrySettings
from server.telemetry import CATALOGUE, LabelCaps, Traffic, TrafficNow
from server.telemetry.histogram import Histograms, quantile
from server.telemetry.observations import DURATION, ITL, LAG, OVERHEAD, QUEUE, TPOT, TTFT
from server.wire import Outcome
from tests.fakes.batches import batch, record, tokens, used, worker
from tests.fakes.clock import FakeClock

KEY = ("demo-int4", "demo", "int4", "int4", "none")
NOWHERE = ("none", "none", "none", "none", "none")


def seen(traffic: Traffic, name: str) -> tuple[int, float]:
    """How many values a histogram holds, and their sum."""
    rows = traffic.now().histograms[name].values()
    return sum(sum(row.buckets) for row in rows), sum(row.total for row in rows)


def take(traffic: Traffic, **fields: Any) -> TrafficNow:
    traffic.take(batch(records=[record(**fields)]), worker())
    return traffic.now()


def test_time_to_first_token_is_what_the_client_feels_queueing_included(traffic: Traffic) -> None:
    take(traffic, received_at=1000.0, queue_s=0.25, sent_at=1000.25, first_token_at=1000.5)
    assert seen(traffic, TTFT) == (1, 0.5)


def test_whole_answer_has_no_time_to_first_token(traffic: Traffic) -> None:
    take(traffic, streamed=False, first_token_at=None, last_token_at=None, token_chunks=0)
    assert seen(traffic, TTFT)[0] == seen(traffic, TPOT)[0] == 0
    assert seen(traffic, DURATION)[0] == 1


def test_time_per_output_token_spreads_the_rest_over_all_but_the_first_token(traffic: Traffic) -> None:
    take(traffic, first_token_at=1000.5, ended_at=1002.5, output_tokens=5)
    assert seen(traffic, TPOT) == (1, 0.5)


@pytest.mark.parametrize("output", [None, 0, 1])
def test_time_per_output_token_of_one_or_unknown_tokens_is_unknown(traffic: Traffic, output: int | None) -> None:
    take(traffic, output_tokens=output)
    assert seen(traffic, TPOT)[0] == 0


def test_overhead_is_what_the_gateway_added_before_and_after_the_engine(traffic: Traffic) -> None:
    take(traffic, received_at=1000.0, queue_s=0.25, sent_at=1000.5, upstream_done_at=1004.0, ended_at=1004.125)
    assert seen(traffic, OVERHEAD) == (1, 0.375)


def test_overhead_of_a_retried_request_would_hold_the_failed_attempt_and_is_not_counted(traffic: Traffic) -> None:
    take(traffic, retries=1)
    assert seen(traffic, OVERHEAD)[0] == 0


def test_request_that_gave_up_waiting_counts_in_the_queue_time(traffic: Traffic) -> None:
    take(traffic, outcome=Outcome.REJECTED, status=429, queue_s=10.0, sent_at=None, first_token_at=None)
    assert seen(traffic, QUEUE) == (1, 10.0)
    assert seen(traffic, DURATION)[0] == 0


def test_request_refused_at_once_has_no_latency(traffic: Traffic) -> None:
    take(traffic, outcome=Outcome.REJECTED, status=429, queue_s=0.0, sent_at=None, first_token_at=None)
    assert [seen(traffic, name)[0] for name in (QUEUE, TTFT, DURATION, OVERHEAD)] == [0, 0, 0, 0]


def test_tokenizing_is_counted_but_does_not_touch_the_latencies(traffic: Traffic) -> None:
    now = take(traffic, endpoint="tokenize", first_token_at=None, output_tokens=None, token_chunks=0)
    assert sum(now.requests.values()) == 1
    assert seen(traffic, DURATION)[0] == 0
    assert not now.without_usage


def test_gaps_are_measured_within_a_batch_and_across_batches(traffic: Traffic) -> None:
    traffic.take(batch(1, streams=[tokens([1000.0, 1000.5, 1000.75])]), worker())
    assert seen(traffic, ITL) == (2, 0.75)
    traffic.take(batch(2, streams=[tokens([1001.75], previous_at=1000.75)]), worker())
    assert seen(traffic, ITL) == (3, 1.75)


def test_first_token_of_a_stream_alone_makes_no_gap(traffic: Traffic) -> None:
    traffic.take(batch(1, streams=[tokens([1000.0]), tokens([])]), worker())
    assert seen(traffic, ITL) == (0, 0)


def test_tokens_are_counted_by_usage_and_cached_ones_are_part_of_the_prompt(traffic: Traffic) -> None:
    now = take(traffic, prompt_tokens=10, cached_tokens=4, output_tokens=7, token_chunks=6)
    assert now.tokens == {(*KEY, "prompt"): 10, (*KEY, "cached"): 4, (*KEY, "output"): 7}
    assert now.tenant_tokens["alice", "output"] == 7
    assert now.chunks == {KEY: 6}


def test_stream_without_usage_is_unknown_not_counted_by_its_chunks(traffic: Traffic) -> None:
    now = take(traffic, prompt_tokens=None, cached_tokens=None, output_tokens=None, token_chunks=9)
    assert not now.tokens
    assert not now.chunks
    assert now.without_usage == {KEY: 1}


def test_request_that_was_never_routed_has_no_engine(traffic: Traffic) -> None:
    unrouted = dict.fromkeys(("model", "variant", "precision", "engine"))
    now = take(traffic, outcome=Outcome.CLIENT_ERROR, status=404, sent_at=None, first_token_at=None, **unrouted)
    assert now.requests == {(*NOWHERE, "client_error"): 1}


def test_cancellation_is_counted_by_its_moment(traffic: Traffic) -> None:
    now = take(traffic, outcome=Outcome.CANCELLED, cancelled_when="streaming", tokens_spared=40)
    assert (now.cancelled, now.spared) == ({"streaming": 1}, {"streaming": 40})


@given(st.lists(st.integers(1, 6), max_size=30))
def test_batches_count_once_however_often_they_come(sent: list[int]) -> None:
    traffic = Traffic(LabelCaps(TelemetrySettings(), FakeClock()))
    highest = 0
    for seq in sent:
        accepted = traffic.take(batch(seq, records=[record()], streams=[tokens([1.0, 2.0])]), worker())
        assert accepted == (seq > highest)
        highest = max(highest, seq)
    fresh = len({seq for index, seq in enumerate(sent) if seq > max([0, *sent[:index]])})
    assert sum(traffic.now().requests.values()) == seen(traffic, ITL)[0] == fresh


def test_another_life_of_a_worker_counts_its_batches_anew(traffic: Traffic) -> None:
    assert traffic.take(batch(1), worker("first"))
    assert traffic.take(batch(1), worker("second"))


def test_in_flight_and_queue_are_summed_over_workers_and_forgotten_with_them(traffic: Traffic) -> None:
    traffic.take(batch(in_flight={"a": 2}, queued=3), worker("one", 0))
    traffic.take(batch(in_flight={"a": 1, "b": 4}, queued=1), worker("two", 1))
    now = traffic.now().workers
    assert (now.in_flight, now.queued, now.up) == ({"a": 3, "b": 4}, 4, {0: True, 1: True})
    traffic.left(worker("one", 0))
    now = traffic.now().workers
    assert (now.in_flight, now.queued, now.up) == ({"a": 1, "b": 4}, 1, {0: False, 1: True})
    traffic.left(worker("two", 1))
    assert traffic.now().workers.queued is None


def test_worker_that_replaces_another_in_its_slot_is_up_while_the_old_one_leaves(traffic: Traffic) -> None:
    traffic.take(batch(), worker("old", 0))
    traffic.take(batch(), worker("new", 0))
    traffic.left(worker("old", 0))
    assert traffic.now().workers.up == {0: True}


LIVES = st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 50)), max_size=30)


@given(LIVES)
def test_totals_of_workers_never_fall_and_end_as_the_sum_of_their_lives(reports: list[tuple[str, int]]) -> None:
    traffic = Traffic(LabelCaps(TelemetrySettings(), FakeClock()))
    counted: Counter[str] = Counter()
    seqs: Counter[str] = Counter()
    before = 0
    for boot, growth in reports:
        counted[boot] += growth
        seqs[boot] += 1
        report = {"records_dropped": counted[boot], "rejections": {"queue_full": counted[boot]}, "retries": {}}
        traffic.take(batch(seqs[boot], **report), worker(boot))
        now = traffic.now().workers
        assert now.records_dropped >= before
        before = now.records_dropped
    now = traffic.now().workers
    assert now.records_dropped == counted.total()
    assert now.rejections.get("queue_full", 0) == counted.total()


def test_lag_of_every_event_loop_is_a_histogram_of_its_own(traffic: Traffic) -> None:
    traffic.take(batch(1, loop_lags_s=[0.0005, 0.0005]), worker(slot=3))
    traffic.take(batch(2, loop_lags_s=[0.03]), worker(slot=3))
    traffic.take_lags("control", [0.002])
    rows = traffic.now().histograms[LAG]
    assert {process: sum(row.buckets) for (process,), row in rows.items()} == {"worker-3": 3, "control": 1}
    edges = Histograms(CATALOGUE[LAG].buckets).edges
    p99 = quantile(edges, rows["worker-3",].counts, 0.99)
    assert p99 is not None
    assert 0.02 < p99 <= 0.05


def test_what_many_batches_bring_is_counted_whether_or_not_somebody_looked_between(clock: FakeClock) -> None:
    looked, waited = (Traffic(LabelCaps(TelemetrySettings(), clock)) for _ in range(2))
    for seq in range(1, 13):
        some = batch(
            seq,
            records=[record(id=f"{seq}-{n}", adapter="json" if n % 3 else "none") for n in range(500)],
            streams=[tokens([1000.0, 1000.5], id=str(n)) for n in range(5)],
            loop_lags_s=[0.001],
        )
        for traffic in (looked, waited):
            traffic.take(some, worker())
        looked.now()
    for name, rows in looked.now().histograms.items():
        others = waited.now().histograms[name]
        assert {labels: row.buckets for labels, row in rows.items()} == {
            labels: row.buckets for labels, row in others.items()
        }
    assert looked.now().requests == waited.now().requests
    assert sum(waited.now().requests.values()) == 6000
    assert looked.now().tokens == waited.now().tokens


def test_energy_of_a_request_is_observed_under_its_configuration(traffic: Traffic) -> None:
    traffic.take_energies([used("r1", 1_500_000, adapter="json"), used("r2", 500_000)])
    rows = traffic.now().histograms["wattgate_request_energy_joules"]
    row = rows[*KEY[:4], "json"]
    assert (sum(row.buckets), row.total) == (1, 1.5)
    assert {exemplar.request_id for exemplar in row.exemplars.values()} == {"r1"}
    assert rows[KEY].total == 0.5


def test_energy_of_a_request_that_failed_or_is_known_in_part_is_not_observed(traffic: Traffic) -> None:
    traffic.take_energies([used("r1", 1, completed=False), used("r2", 1, whole=False)])
    assert traffic.now().histograms["wattgate_request_energy_joules"] == {}
