"""What every method of attribution must keep, and what token_share promises beyond it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.energy.attribution import ATTRIBUTIONS, Account, Attribution, EngineUse, RequestUse, Share, Window
from server.units import Microjoules, Seconds

METHODS = pytest.mark.parametrize("method", [make() for make in ATTRIBUTIONS.values()], ids=ATTRIBUTIONS)

NAMES = ["a", "b", "c"]


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
    requests = (
        [
            RequestUse(
                key=key,
                engine=draw(st.sampled_from([engine.engine for engine in engines])),
                millitokens=draw(small),
                overlap_us=draw(small),
            )
            for key in range(draw(st.integers(0, 6)))
        ]
        if engines
        else []
    )
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


@METHODS
@given(window=windows())
def test_shares_add_up_to_the_meter_exactly(method: Attribution, window: Window) -> None:
    shares = method.attribute(window)
    assert sum(share.energy for share in shares) == window.energy
    assert all(share.energy >= 0 for share in shares)


@METHODS
@given(window=windows())
def test_active_joules_belong_to_a_request_on_its_engine_and_no_others_do(method: Attribution, window: Window) -> None:
    engine_of = {request.key: request.engine for request in window.requests}
    for share in method.attribute(window):
        if share.account is Account.ACTIVE:
            assert share.request is not None
            assert share.engine == engine_of[share.request]
        else:
            assert share.request is None


@METHODS
@given(window=windows())
def test_a_request_that_did_nothing_among_others_that_did_gets_nothing(method: Attribution, window: Window) -> None:
    idle = replace(window, requests=[replace(request, millitokens=0) for request in window.requests[:1]])
    if not idle.requests:
        return
    (lazy,) = idle.requests
    worker = RequestUse(key=99, engine=lazy.engine, millitokens=1000, overlap_us=1)
    shares = method.attribute(replace(idle, requests=[lazy, worker]))
    assert sum(share.energy for share in shares if share.request == lazy.key) == 0


@METHODS
@given(window=windows(), millitokens=st.integers(1, 10**6))
def test_equal_work_costs_the_same_to_a_microjoule(method: Attribution, window: Window, millitokens: int) -> None:
    if not window.engines:
        return
    name = window.engines[0].engine
    twins = [RequestUse(key=key, engine=name, millitokens=millitokens, overlap_us=5) for key in (1, 2)]
    one, two = (paid(method.attribute(replace(window, requests=twins)), key) for key in (1, 2))
    assert abs(one - two) <= 1


@METHODS
@given(window=windows(), more=st.integers(1, 10**6))
def test_more_output_never_costs_less(method: Attribution, window: Window, more: int) -> None:
    if not window.requests:
        return
    first, *rest = window.requests
    longer = replace(window, requests=[replace(first, millitokens=first.millitokens + more), *rest])
    if not any(request.millitokens for request in window.requests):
        return  # was shared by time, which is another measure
    assert paid(method.attribute(longer), first.key) >= paid(method.attribute(window), first.key) - 1


def paid(shares: list[Share], request: int) -> int:
    return sum(share.energy for share in shares if share.request == request)


def test_method_says_that_its_confidence_is_low() -> None:
    method = ATTRIBUTIONS["token_share"]()
    assert method.method == "token_share"
    assert method.confidence < 0.5


def by_account(window: Window) -> dict[tuple[str, str | None], int]:
    sums: Counter[tuple[str, str | None]] = Counter()
    for share in ATTRIBUTIONS["token_share"]().attribute(window):
        sums[share.account.value, share.engine] += share.energy
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


def request(key: int, engine: str, millitokens: int) -> RequestUse:
    return RequestUse(key=key, engine=engine, millitokens=millitokens, overlap_us=1000)


def test_cpu_idle_power_goes_to_engines_in_equal_parts_and_the_rest_by_cpu_time() -> None:
    window = replace(CPU, requests=[request(1, "a", 5)])
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
    window = replace(GPU, requests=[request(1, "a", 3000), request(2, "b", 1000)])
    assert by_account(window) == {("active", "a"): 750, ("active", "b"): 250}


def test_gpu_on_which_nobody_ran_is_idle() -> None:
    assert by_account(GPU) == {("idle", "a"): 500, ("idle", "b"): 500}
    assert by_account(replace(GPU, engines=[])) == {("idle", None): 1000}


def test_traffic_past_the_gateway_is_unattributed() -> None:
    foreign = [replace(GPU.engines[0], foreign_millitokens=1000), GPU.engines[1]]
    window = replace(GPU, engines=foreign, requests=[request(1, "a", 3000)])
    assert by_account(window) == {("active", "a"): 750, ("unattributed", "a"): 250}


def test_request_that_only_waited_pays_by_time_when_no_token_came() -> None:
    window = replace(GPU, requests=[request(1, "a", 0)])
    assert by_account(window) == {("active", "a"): 1000}


def test_engine_that_was_seen_running_for_nobody_known_is_unattributed_not_idle() -> None:
    window = replace(GPU, engines=[replace(GPU.engines[0], busy=True), GPU.engines[1]])
    assert by_account(window) == {("unattributed", "a"): 1000}


def test_baseline_above_the_energy_is_cut_to_it() -> None:
    assert by_account(replace(CPU, baseline=Microjoules(5000), engines=[])) == {("idle", None): 1000}
