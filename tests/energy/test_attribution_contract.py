"""What every method of attribution must keep, and what token_share promises beyond it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.energy.attribution import (
    ATTRIBUTIONS,
    Account,
    Attribution,
    EngineUse,
    RequestUses,
    Shares,
    TokenEvents,
    Window,
)
from server.units import Microjoules, Seconds

METHODS = pytest.mark.parametrize("method", [make() for make in ATTRIBUTIONS.values()], ids=ATTRIBUTIONS)
"""One of each for all examples, so that they also meet what earlier windows taught them."""
QUICKLY = settings(max_examples=60, deadline=None)

NAMES = ["a", "b", "c"]


def uses(*requests: tuple[int, int, int]) -> RequestUses:
    """Each is its engine's place, its millitokens, its overlap."""
    columns = np.array(requests, np.int64).reshape(-1, 3).T
    return RequestUses(engine=columns[0], millitokens=columns[1], overlap_us=columns[2])


@st.composite
def windows(draw: st.DrawFn) -> Window:
    """Anything that can be said of a window, the improbable included."""
    small = st.integers(0, 5) | st.integers(0, 10**7)
    engines = [
        EngineUse(
            engine=name,
            up=draw(st.booleans()),
            cpu_us=draw(small),
            foreign_millitokens=draw(small),
            busy=draw(st.booleans()),
        )
        for name in draw(st.lists(st.sampled_from(NAMES), unique=True))
    ]
    count = draw(st.integers(0, 6)) if engines else 0
    requests = uses(*((draw(st.integers(0, len(engines) - 1)), draw(small), draw(small)) for _ in range(count)))
    return Window(
        device="cpu",
        scope="estimated",
        start=Seconds(0.0),
        end=Seconds(1.0),
        energy=Microjoules(draw(small)),
        baseline=draw(st.none() | small.map(Microjoules)),
        engines=engines,
        requests=requests,
        other_cpu_us=draw(st.none() | small),
    )


TIME = st.just(math.nan) | st.floats(-2.0, 3.0)
"""As seen from the window's start."""
COUNT = st.integers(-1, 3) | st.integers(-1, 10**6)


@st.composite
def told_windows(draw: st.DrawFn) -> Window:
    """Windows with all that can be told of their requests, possible or not."""
    window = draw(windows())
    start = draw(st.sampled_from([0.0, 1.0, 1000.0]))
    count = len(window.requests)

    def column(values: st.SearchStrategy[float], dtype: type) -> npt.NDArray[Any]:
        return np.array(draw(st.lists(values, min_size=count, max_size=count)), dtype)

    requests = replace(
        window.requests,
        prompt_millitokens=np.minimum(column(st.integers(0, 10**7), np.int64), window.requests.millitokens),
        adapter=column(st.booleans(), np.bool_),
        prompt_tokens=column(COUNT, np.int64),
        computed_prompt_tokens=column(COUNT, np.int64),
        output_tokens=column(COUNT, np.int64),
        tokens_before=column(st.floats(0, 1e6), np.float64),
        sent_at=start + column(TIME, np.float64),
        first_token_at=start + column(TIME, np.float64),
        done_at=start + column(TIME, np.float64),
        streamed=column(st.booleans(), np.bool_),
    )
    chunks = draw(st.integers(0, 30)) if count else 0
    times = draw(st.lists(st.sampled_from([0.0, 0.1, 0.5]) | st.floats(0.0, 0.999), min_size=chunks, max_size=chunks))
    owners = draw(st.lists(st.integers(0, max(0, count - 1)), min_size=chunks, max_size=chunks))
    tokens = TokenEvents(
        times=start + np.sort(np.array(times, np.float64)),
        request=np.array(owners, np.int64),
        tokens=np.array(draw(st.lists(st.floats(0.0, 5.0), min_size=chunks, max_size=chunks)), np.float64),
    )
    return replace(window, start=Seconds(start), end=Seconds(start + 1.0), requests=requests, tokens=tokens)


@METHODS
@QUICKLY
@given(some=st.lists(told_windows() | windows(), min_size=1, max_size=3))
def test_no_stream_of_events_breaks_the_sum(method: Attribution, some: list[Window]) -> None:
    for window in some:
        method.learn(window)
        check(method.attribute(window), window)


@METHODS
def test_thousands_of_requests_add_up_as_well(method: Attribution) -> None:
    random, count = np.random.default_rng(0), 4000
    sent = random.uniform(-5.0, 1.0, count)
    first = sent + random.exponential(0.5, count)
    owners = random.integers(0, count, 20_000)
    window = Window(
        device="big",
        scope="gpu",
        start=Seconds(0.0),
        end=Seconds(1.0),
        energy=Microjoules(987_654_321),
        engines=[EngineUse(engine=name, up=True) for name in NAMES],
        requests=RequestUses(
            engine=random.integers(0, 3, count),
            millitokens=random.integers(0, 50_000, count),
            overlap_us=random.integers(0, 10**6, count),
            prompt_millitokens=np.zeros(count, np.int64),
            adapter=random.random(count) < 0.2,
            prompt_tokens=random.integers(-1, 5000, count),
            computed_prompt_tokens=random.integers(-1, 5000, count),
            output_tokens=random.integers(-1, 500, count),
            tokens_before=random.uniform(0.0, 100.0, count),
            sent_at=sent,
            first_token_at=first,
            done_at=np.where(random.random(count) < 0.5, np.nan, first + random.exponential(2.0, count)),
            streamed=random.random(count) < 0.8,
        ),
        tokens=TokenEvents(times=np.sort(random.uniform(0.0, 1.0, 20_000)), request=owners, tokens=np.ones(20_000)),
    )
    for _ in range(3):
        check(method.attribute(window), window)


def check(shares: Shares, window: Window) -> None:
    assert shares.total == window.energy
    assert len(shares.prefill) == len(shares.decode) == len(window.requests)
    assert shares.prefill.min(initial=0) >= 0
    assert shares.decode.min(initial=0) >= 0
    assert all(share.energy > 0 for share in shares.others)
    assert 0.0 <= shares.confidence <= 1.0


@METHODS
@QUICKLY
@given(window=windows())
def test_shares_add_up_to_the_meter_exactly(method: Attribution, window: Window) -> None:
    shares = method.attribute(window)
    assert sum(shares.requests.tolist()) + sum(share.energy for share in shares.others) == window.energy
    assert shares.total == window.energy
    assert all(share.energy >= 0 for share in shares.others)
    assert all(energy >= 0 for energy in shares.requests.tolist())


@METHODS
@QUICKLY
@given(window=windows())
def test_active_joules_belong_to_requests_and_no_others_do(method: Attribution, window: Window) -> None:
    shares = method.attribute(window)
    assert len(shares.requests) == len(window.requests)
    assert all(share.account is not Account.ACTIVE for share in shares.others)


@METHODS
@QUICKLY
@given(window=windows())
def test_a_request_that_did_nothing_among_others_that_did_gets_nothing(method: Attribution, window: Window) -> None:
    if not window.engines:
        return
    both = replace(window, requests=uses((0, 0, 5), (0, 1000, 1)))
    assert method.attribute(both).requests[0] == 0


@METHODS
@QUICKLY
@given(window=windows(), millitokens=st.integers(1, 10**6))
def test_equal_work_costs_the_same_to_a_microjoule(method: Attribution, window: Window, millitokens: int) -> None:
    if not window.engines:
        return
    one, two = method.attribute(replace(window, requests=uses((0, millitokens, 5), (0, millitokens, 5)))).requests
    assert abs(one - two) <= 1


@METHODS
@QUICKLY
@given(window=windows(), more=st.integers(1, 10**6))
def test_more_output_never_costs_less(method: Attribution, window: Window, more: int) -> None:
    if not window.requests.millitokens.any():
        return  # is shared by time, which is another measure
    longer = window.requests.millitokens.copy()
    longer[0] += more
    after = replace(window, requests=replace(window.requests, millitokens=longer))
    assert method.attribute(after).requests[0] >= method.attribute(window).requests[0] - 1


def test_method_says_that_its_confidence_is_low() -> None:
    method = ATTRIBUTIONS["token_share"]()
    assert method.method == "token_share"
    assert method.confidence < 0.5


def test_prompt_and_output_are_apart() -> None:
    window = replace(GPU, requests=replace(uses((0, 4000, 1000)), prompt_millitokens=np.array([1000])))
    shares = ATTRIBUTIONS["token_share"]().attribute(window)
    assert (shares.prefill.tolist(), shares.decode.tolist()) == ([250], [750])


def by_account(window: Window) -> dict[tuple[str, str | None], int]:
    sums: Counter[tuple[str, str | None]] = Counter()
    shares = ATTRIBUTIONS["token_share"]().attribute(window)
    for share in shares.others:
        sums[share.account.value, share.engine] += share.energy
    for place, energy in zip(window.requests.engine.tolist(), shares.requests.tolist(), strict=True):
        sums["active", window.engines[place].engine] += energy
    return dict(sums)


CPU = Window(
    device="cpu",
    scope="estimated",
    start=Seconds(0.0),
    end=Seconds(1.0),
    energy=Microjoules(1000),
    baseline=Microjoules(200),
    engines=[EngineUse(engine="a", up=True, cpu_us=30), EngineUse(engine="b", up=True, cpu_us=10)],
    other_cpu_us=40,
)
GPU = replace(CPU, device="gpu:0", scope="gpu", baseline=None, other_cpu_us=None)


def test_cpu_idle_power_goes_to_engines_in_equal_parts_and_the_rest_by_cpu_time() -> None:
    window = replace(CPU, requests=uses((0, 5, 1000)))
    assert by_account(window) == {
        ("idle", "a"): 100,
        ("idle", "b"): 100 + 100,  # b ran 10 of 80 µs without a request
        ("active", "a"): 300,
        ("other", None): 400,
    }


def test_cpu_engine_that_is_down_gets_no_idle_power() -> None:
    window = replace(CPU, engines=[replace(CPU.engines[0], up=False, cpu_us=0), CPU.engines[1]], other_cpu_us=0)
    assert by_account(window) == {("idle", "b"): 1000}


def test_cpu_without_any_engine_is_idle_and_other() -> None:
    assert by_account(replace(CPU, engines=[])) == {("idle", None): 200, ("other", None): 800}


def test_gpu_is_one_pool_that_requests_share_by_tokens() -> None:
    window = replace(GPU, requests=uses((0, 3000, 1000), (1, 1000, 1000)))
    assert by_account(window) == {("active", "a"): 750, ("active", "b"): 250}


def test_gpu_on_which_nobody_ran_is_idle() -> None:
    assert by_account(GPU) == {("idle", "a"): 500, ("idle", "b"): 500}
    assert by_account(replace(GPU, engines=[])) == {("idle", None): 1000}


def test_traffic_past_the_gateway_is_unattributed() -> None:
    foreign = [replace(GPU.engines[0], foreign_millitokens=1000), GPU.engines[1]]
    window = replace(GPU, engines=foreign, requests=uses((0, 3000, 1000)))
    assert by_account(window) == {("active", "a"): 750, ("unattributed", "a"): 250}


def test_request_that_only_waited_pays_by_time_when_no_token_came() -> None:
    window = replace(GPU, requests=uses((0, 0, 1000)))
    assert by_account(window) == {("active", "a"): 1000}


def test_engine_that_was_seen_running_for_nobody_known_is_unattributed_not_idle() -> None:
    window = replace(GPU, engines=[replace(GPU.engines[0], busy=True), GPU.engines[1]])
    assert by_account(window) == {("unattributed", "a"): 1000}


def test_baseline_above_the_energy_is_cut_to_it() -> None:
    assert by_account(replace(CPU, baseline=Microjoules(5000), engines=[])) == {("idle", None): 1000}
