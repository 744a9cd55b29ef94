"""The table that needs no Prometheus."""

from __future__ import annotations

import pytest

from server.telemetry import Row, Traffic, summarize
from server.units import Microjoules
from server.wire import Outcome
from tests.fakes.batches import batch, record, replica, tokens, worker
from tests.telemetry.test_exposition import ENGINE, Figures


def rows(traffic: Traffic, *by: str) -> dict[tuple[str, ...], Row]:
    found = summarize(traffic.now(), Figures(), [replica(memory_bytes=5)], by=by or ("variant", "adapter"))
    return {tuple(row.group.values()): row for row in found}


def test_rows_are_apart_by_the_labels_asked_for_and_together_by_the_others(traffic: Traffic) -> None:
    traffic.take(batch(records=[record(), record(adapter="json"), record(variant="bf16", engine="other")]), worker())
    assert rows(traffic).keys() == {("int4", "none"), ("int4", "json"), ("bf16", "none")}
    assert rows(traffic, "variant")["int4",].requests == 2


def test_errors_and_cancellations_stand_apart(traffic: Traffic) -> None:
    outcomes = [Outcome.OK, Outcome.CANCELLED, Outcome.TRUNCATED, Outcome.UPSTREAM_ERROR, Outcome.CLIENT_ERROR]
    traffic.take(batch(records=[record(outcome=outcome) for outcome in outcomes]), worker())
    row = rows(traffic)["int4", "none"]
    assert (row.requests, row.errors, row.cancelled) == (5, 3, 1)


def test_requests_that_reached_no_engine_make_no_row(traffic: Traffic) -> None:
    traffic.take(batch(records=[record(engine=None, variant=None, sent_at=None, first_token_at=None)]), worker())
    assert rows(traffic) == {}


def test_quantiles_lie_near_the_truth(traffic: Traffic) -> None:
    times = [0.001 * number for number in range(1, 101)]
    traffic.take(batch(records=[record(first_token_at=1000.0 + time) for time in times]), worker())
    row = rows(traffic)["int4", "none"]
    assert row.ttft_p50_s == pytest.approx(0.050, rel=0.05)
    assert row.ttft_p95_s == pytest.approx(0.095, rel=0.05)


def test_throughput_is_output_over_the_time_that_anything_ran(traffic: Traffic) -> None:
    ended = [
        record(sent_at=1000.0, ended_at=1002.0, output_tokens=10),
        record(sent_at=1001.0, ended_at=1003.0, output_tokens=10),
        record(sent_at=1010.0, ended_at=1011.0, output_tokens=20),
    ]
    traffic.take(batch(records=ended), worker())
    row = rows(traffic)["int4", "none"]
    assert (row.busy_s, row.output_tokens_per_s) == (4.0, 10.0)


def test_joules_per_token_is_a_ratio_of_sums_with_its_scope(traffic: Traffic) -> None:
    traffic.take(batch(records=[record(output_tokens=10), record(output_tokens=10)]), worker())
    row = rows(traffic)["int4", "none"]
    assert row.joules_per_output_token == pytest.approx(1.000001 / 20)
    assert row.scopes == ["estimated"]


def test_without_tokens_or_meter_the_ratio_is_unknown_not_zero(traffic: Traffic) -> None:
    traffic.take(batch(records=[record(output_tokens=None)]), worker())
    row = rows(traffic)["int4", "none"]
    assert row.joules_per_output_token is None
    assert row.output_tokens_per_s is None
    (row,) = summarize(traffic.now(), None, [])
    assert row.active_joules is None
    assert row.scopes == []


def test_energy_of_an_engine_without_requests_makes_no_row(traffic: Traffic) -> None:
    figures = Figures(accounts={("cpu", "estimated", *ENGINE.values(), "none", "active", "decode"): Microjoules(5)})
    assert summarize(traffic.now(), figures, [replica()]) == []


def test_memory_and_size_come_from_the_replicas_of_the_row(traffic: Traffic) -> None:
    traffic.take(batch(records=[record()], streams=[tokens([1.0, 1.5])]), worker())
    other = replica(name="demo-bf16", variant="bf16", memory_bytes=100)
    twins = [replica(name="one", memory_bytes=5), replica(name="two", memory_bytes=6), other]
    (row,) = summarize(traffic.now(), None, twins)
    assert (row.memory_bytes, row.size_bytes, row.bits_per_weight) == (11, 4_000_000, 7.6)
    (row,) = summarize(traffic.now(), None, [*twins, replica(name="three", memory_bytes=None)])
    assert row.memory_bytes is None


def test_unknown_label_is_refused_by_name(traffic: Traffic) -> None:
    with pytest.raises(ValueError, match=r"'colour' is none of engine, model, variant, precision, adapter"):
        summarize(traffic.now(), None, [], by=["colour"])
