"""What a method of attribution is told of a window."""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np
import pytest

from server.energy.attribution import Shares, Window
from server.energy.attribution.token_share import TokenShare
from tests.energy.house import House
from tests.fakes.batches import record, replica, tokens
from tests.fakes.clock import FakeClock
from tests.fakes.meter import FakeMeter


class Listener(TokenShare):
    """Keeps the windows."""

    def __init__(self) -> None:
        self.windows: list[Window] = []

    def attribute(self, window: Window) -> Shares:
        self.windows.append(window)
        return super().attribute(window)


@pytest.fixture
def house() -> House:
    built = House()
    built.accountant.attribution = Listener()
    built.tick()
    return built


def windows(house: House) -> list[Window]:
    """All of them, closed."""
    house.tell()
    house.tick()
    assert isinstance(house.accountant.attribution, Listener)
    return house.accountant.attribution.windows


def column(window: Window, name: str) -> list[Any]:
    values: list[Any] = getattr(window.requests, name).tolist()
    return values


def test_token_times_of_a_window_come_in_order_with_their_requests(house: House) -> None:
    house.tell(
        at=1002.0,
        streams=[tokens([1000.5, 1000.9, 1001.2], id="a"), tokens([1000.3, 1000.6, 1001.0], id="b", adapter="json")],
        records=[
            record(id="a", token_chunks=3, output_tokens=6, upstream_done_at=1001.3),
            record(id="b", adapter="json", token_chunks=3, output_tokens=3, upstream_done_at=1001.3),
        ],
    )
    house.second(5.0)
    house.second(5.0)
    first, second = windows(house)
    assert first.tokens.times.tolist() == [1000.3, 1000.5, 1000.6, 1000.9]
    assert first.tokens.request.tolist() == [1, 0, 1, 0]
    assert first.tokens.tokens.tolist() == [1.0, 2.0, 1.0, 2.0], "a chunk of the first holds two"
    assert second.tokens.times.tolist() == [1001.0, 1001.2], "one on the border counts in the later window"
    assert column(first, "tokens_before") == [0.0, 0.0]
    assert column(second, "tokens_before") == [4.0, 2.0]
    assert column(first, "adapter") == [False, True]


def test_tokens_of_windows_long_closed_still_count_as_before(house: House) -> None:
    at = 1000.0
    for second in range(30):
        previous = None if second == 0 else at - 0.5
        house.tell(at=at + 0.6, streams=[tokens([at + 0.5], previous_at=previous)], in_flight={"demo-int4": 1})
        house.second(1.0)
        at += 1.0
    house.tell(records=[record(output_tokens=30, token_chunks=30, upstream_done_at=at - 0.4, ended_at=at - 0.4)])
    house.tick()
    assert [column(window, "tokens_before")[0] for window in windows(house)] == list(range(30))


def test_request_tells_all_that_its_record_says(house: House) -> None:
    house.tell(
        at=1001.0,
        streams=[tokens([1000.4, 1000.6], sent_at=1000.1)],
        records=[
            record(sent_at=1000.1, first_token_at=1000.4, upstream_done_at=1000.7, prompt_tokens=50, cached_tokens=32,
                   output_tokens=2, token_chunks=2),
        ],
    )  # fmt: skip
    house.second(5.0)
    (window,) = windows(house)
    assert (column(window, "prompt_tokens"), column(window, "computed_prompt_tokens")) == ([50], [18])
    assert (column(window, "output_tokens"), column(window, "streamed")) == ([2], [True])
    times = ("sent_at", "first_token_at", "done_at")
    assert [column(window, name) for name in times] == [[1000.1], [1000.4], [1000.7]]
    assert column(window, "millitokens") == [2000 + 1800]
    assert column(window, "prompt_millitokens") == [1800]


def test_stream_that_still_runs_is_known_as_far_as_it_went() -> None:
    house = House(hold_s=1.0)
    house.accountant.attribution = Listener()
    house.tick()
    house.tell(at=1000.9, streams=[tokens([1000.4, 1000.6], sent_at=1000.1)], in_flight={"demo-int4": 1})
    house.second(5.0)
    house.second(5.0)
    window = windows(house)[0]
    unknown = ("prompt_tokens", "computed_prompt_tokens", "output_tokens")
    assert [column(window, name) for name in unknown] == [[-1]] * 3
    assert np.isnan(column(window, "done_at")).all()
    assert (column(window, "first_token_at"), column(window, "streamed")) == ([1000.4], [True])
    assert window.tokens.tokens.tolist() == [1.0, 1.0]


def test_answer_that_came_whole_has_no_token_times_and_is_spread(house: House) -> None:
    whole = record(
        streamed=False, sent_at=1000.5, first_token_at=None, upstream_done_at=1002.5, ended_at=1002.5, token_chunks=0,
        output_tokens=20, prompt_tokens=0,
    )  # fmt: skip
    house.tell(at=1003.0, records=[whole])
    for _ in range(3):
        house.second(1.0)
    found = windows(house)
    assert [column(window, "tokens_before")[0] for window in found] == [0.0, 5.0, 15.0]
    assert [column(window, "millitokens")[0] for window in found] == [5000, 10000, 5000]
    assert {(str(column(window, "first_token_at")[0]), column(window, "streamed")[0]) for window in found} == {
        (str(nan), False)
    }
    assert not any(len(window.tokens) for window in found)


@pytest.mark.parametrize(
    ("before", "after", "counted"),
    [
        ((100, 40, 10), (400, 90, 60), (250, 50)),
        ((100, 40, 10), (400, 90, 5), (None, 50)),
        ((100, 40, 10), (50, 20, 60), (None, None)),
        ((100, 40, None), (400, 90, None), (None, 50)),
        ((None, None, None), (400, 90, 60), (None, None)),
        ((100, 40, 10), (100, 40, 50), (0, 0)),
    ],
)
def test_engine_counters_are_told_by_their_growth(house: House, before: Any, after: Any, counted: Any) -> None:
    names = ("prompt_tokens_total", "output_tokens_total", "prefix_cache_hits_total")
    house.replicas = [replica(gauges=dict(zip(names, before, strict=True)))]
    house.second(1.0)
    house.replicas = [replica(gauges=dict(zip(names, after, strict=True)))]
    house.second(1.0)
    (use,) = windows(house)[-1].engines
    assert (use.counted_prompt_tokens, use.counted_output_tokens) == counted


def test_counters_of_an_engine_that_started_again_are_unknown(house: House) -> None:
    house.replicas = [replica(gauges={"output_tokens_total": 10})]
    house.second(1.0)
    house.replicas = [replica(gauges={"output_tokens_total": 20}, restarts=1, pid=7)]
    house.second(1.0)
    house.replicas = [replica(gauges={"output_tokens_total": 50}, restarts=1, pid=7)]
    house.second(1.0)
    assert [window.engines[0].counted_output_tokens for window in windows(house)] == [None, None, 30]


def test_tokens_at_an_engine_on_another_device_are_not_in_the_window() -> None:
    clock = FakeClock()
    meters = [FakeMeter(clock, "gpu:0", kind="one"), FakeMeter(clock, "gpu:1", kind="two")]
    house = House(clock=clock, meters=meters, replicas=[replica(), replica(name="b", device="gpu:1")])
    house.accountant.attribution = Listener()
    house.tick()
    streams = [tokens([1000.2], id="x"), tokens([1000.3, 1000.4], id="y", engine="b")]
    records = [record(id="x", upstream_done_at=1000.5), record(id="y", engine="b", upstream_done_at=1000.5)]
    house.tell(at=1001.0, streams=streams, records=records)
    house.second(1.0)
    assert {window.device: len(window.tokens) for window in windows(house)} == {"gpu:0": 1, "gpu:1": 2}
