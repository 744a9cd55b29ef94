"""What is counted of a request, by which definition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config import TelemetrySettings
from server.config.efficiency import SloSettings
from server.efficiency.served import NOTHING, Served, ServedTally
from server.models.flops import Work
from server.telemetry import LabelCaps
from server.wire import Outcome, RequestRecord
from tests.efficiency.house import INT4, served
from tests.fakes.batches import record
from tests.fakes.clock import FakeClock


def tally(slo: SloSettings | None = None, *, adapters: int = 50) -> ServedTally:
    return ServedTally(LabelCaps(TelemetrySettings(max_adapters=adapters), FakeClock()).adapters, slo)


def counted(*records: RequestRecord, slo: SloSettings | None = None) -> Served:
    one = tally(slo)
    one.take(records)
    return one.now().get(INT4, NOTHING)


def test_latency_and_tokens_are_summed_over_completed_requests() -> None:
    sums = counted(served(0.5, 5), served(1.5, 15), served(2.0, 100, outcome=Outcome.CANCELLED))
    assert (sums.requests, sums.latency_s) == pytest.approx((2, 2.0))
    assert (sums.told_output_tokens, sums.told_latency_s) == pytest.approx((20, 2.0))
    assert sums.output_tokens == 120  # the cancelled one's, too: they were written


def test_request_without_usage_counts_for_latency_and_not_for_throughput() -> None:
    sums = counted(served(1.0, 10), served(3.0, output_tokens=None))
    assert (sums.requests, sums.latency_s) == pytest.approx((2, 4.0))
    assert (sums.told_output_tokens, sums.told_latency_s) == pytest.approx((10, 1.0))


def test_what_reached_no_engine_or_asked_no_model_is_not_counted() -> None:
    assert counted(record(engine=None), record(endpoint="tokenize"), record(endpoint="models")) == NOTHING


TOKENS = st.integers(0, 5000)


@given(st.lists(st.tuples(TOKENS, TOKENS, TOKENS), min_size=1, max_size=20))
def test_work_is_that_of_the_requests_one_by_one(requests: list[tuple[int, int, int]]) -> None:
    records = [record(prompt_tokens=p, cached_tokens=min(c, p), output_tokens=o) for p, c, o in requests]
    each = [Work.of_request(prompt_tokens=p, cached_tokens=min(c, p), output_tokens=o) for p, c, o in requests]
    assert counted(*records).work == sum(each[1:], start=each[0])


def test_more_cached_tokens_than_there_are_count_as_all() -> None:
    sums = counted(record(prompt_tokens=10, cached_tokens=12))
    assert (sums.computed_prompt_tokens, sums.prompt_pairs) == (0, 0)


@pytest.mark.parametrize(
    ("fields", "judged", "good"),
    [
        ({}, 1, 1),
        ({"first_token_at": 1000.21}, 1, 0),
        ({"ended_at": 1000.1 + 4 * 0.051}, 1, 0),
        ({"output_tokens": 1, "ended_at": 1009.0}, 1, 1),  # one token has no gaps
        ({"first_token_at": None, "streamed": False}, 0, 0),
        ({"output_tokens": None}, 0, 0),
        ({"outcome": Outcome.TRUNCATED}, 1, 0),
        ({"outcome": Outcome.UPSTREAM_TIMEOUT}, 1, 0),
        ({"outcome": Outcome.CANCELLED}, 0, 0),
        ({"outcome": Outcome.CLIENT_ERROR}, 0, 0),
    ],
)
def test_requests_are_judged_by_the_slo(fields: dict[str, object], judged: int, good: int) -> None:
    base: dict[str, object] = {"first_token_at": 1000.1, "ended_at": 1000.2, "output_tokens": 5}
    sums = counted(record(**(base | fields)), slo=SloSettings(ttft_s=0.2, itl_s=0.05))
    assert (sums.judged, sums.good) == (judged, good)


def test_without_slo_nobody_is_judged() -> None:
    assert counted(served()).judged == 0


def test_adapters_beyond_the_cap_are_counted_together() -> None:
    one = tally(adapters=1)
    one.take([record(adapter=name) for name in ("json", "code", "sql")])
    assert {key[-1]: sums.requests for key, sums in one.now().items()} == {"json": 1, "other": 2}


def test_a_name_that_is_given_away_moves_to_other() -> None:
    one = tally()
    one.take([record(adapter="json"), record(adapter="other")])
    one.now()
    one.take([record(adapter="json")])
    one.forget_adapter("json")
    assert {key[-1]: sums.requests for key, sums in one.now().items()} == {"other": 3}


def test_what_was_handed_out_does_not_change() -> None:
    one = tally()
    one.take([record()])
    before = one.now()
    one.take([record()])
    assert one.now()[INT4].since(before[INT4]).requests == 1
