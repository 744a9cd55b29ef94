"""What any fair share keeps: twins pay the same, more costs more, who was not there pays nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from server.energy.attribution import ATTRIBUTIONS, Account, Attribution, EngineUse, RequestUses, TokenEvents, Window
from server.energy.attribution.phase_time import PhaseTime
from server.units import Microjoules
from tests.energy.simulator.engine import Asked, arrivals
from tests.energy.simulator.physics import DEVELOPMENT, Physics
from tests.energy.simulator.run import Run, Seen
from tests.energy.simulator.score import charge

PHYSICS = pytest.mark.parametrize("physics", DEVELOPMENT, ids=lambda physics: physics.name)
METHODS = pytest.mark.parametrize("name", ATTRIBUTIONS)


def among_others(physics: Physics, *extra: Asked, rate: float = 1.0) -> tuple[Run, list[int]]:
    """A run with these requests in it, and their numbers."""
    run = Run.of(physics, [*arrivals(physics, rate=rate, seconds=60.0, seed=3), *extra], seed=3)
    return run, [number for number, one in enumerate(run.requests) if one.asked.tenant == "extra"]


@pytest.fixture(scope="module")
def run_of() -> Callable[[int, float], Run]:
    """A plain run on a development set at a rate, each simulated once."""
    return cache(lambda physics, rate: among_others(DEVELOPMENT[physics], rate=rate)[0])


def asked(sent_at: float, output_tokens: int, **fields: bool) -> Asked:
    return Asked(sent_at=sent_at, tenant="extra", prompt_tokens=60, output_tokens=output_tokens, **fields)


@PHYSICS
def test_identical_concurrent_requests_pay_the_same(physics: Physics) -> None:
    run, twins = among_others(physics, *(asked(float(at), 60) for at in range(10, 60, 10) for _ in range(2)))
    paid = charge(run, PhaseTime(), list(run.windows())).sum(axis=0)[twins]
    truth = np.array([run.requests[number].joules for number in twins])
    # The engine may compute two prompts in different steps, and then they did not cost the same.
    alike = np.abs(truth[0::2] / truth[1::2] - 1.0) < 0.001
    assert np.count_nonzero(alike) >= 2
    assert paid[0::2][alike] == pytest.approx(paid[1::2][alike], rel=0.01)


@PHYSICS
def test_more_output_costs_more(physics: Physics) -> None:
    run, numbers = among_others(physics, *(asked(30.0, tokens) for tokens in (20, 40, 60, 80)))
    paid = charge(run, PhaseTime(), list(run.windows())).sum(axis=0)[numbers]
    assert (np.diff(paid) > 0).all()


def with_a_stranger(window: Window) -> Window:
    """One more request, which comes only after the window."""
    old, one = window.requests, np.ones(1)
    later = np.array([window.end + 5.0])
    requests = RequestUses(
        engine=np.append(old.engine, 0),
        millitokens=np.append(old.millitokens, 0),
        overlap_us=np.append(old.overlap_us, 0),
        prompt_millitokens=np.append(old.prompt_millitokens, 0),
        adapter=np.append(old.adapter, True),
        prompt_tokens=np.append(old.prompt_tokens, 100),
        computed_prompt_tokens=np.append(old.computed_prompt_tokens, 100),
        output_tokens=np.append(old.output_tokens, 10),
        tokens_before=np.append(old.tokens_before, 0.0),
        sent_at=np.concatenate([old.sent_at, later]),
        first_token_at=np.concatenate([old.first_token_at, later + one]),
        done_at=np.concatenate([old.done_at, later + 2 * one]),
        streamed=np.append(old.streamed, True),
    )
    return replace(window, requests=requests)


@METHODS
def test_request_that_was_not_there_pays_nothing(name: str, run_of: Callable[[int, float], Run]) -> None:
    run = run_of(0, 1.0)
    method = ATTRIBUTIONS[name]()
    for one in run.windows():
        shares = method.attribute(with_a_stranger(one.window))
        if len(one.numbers):
            assert shares.requests[-1] == 0


def on_shared_cpu(window: Window) -> Window:
    busy = 800_000 if len(window.requests) else 1_000
    engine = replace(window.engines[0], cpu_us=busy)
    return replace(window, engines=[engine], other_cpu_us=200_000, baseline=Microjoules(window.energy // 4))


@METHODS
def test_on_a_shared_cpu_the_engines_pool_follows_cpu_time(name: str, run_of: Callable[[int, float], Run]) -> None:
    run = run_of(2, 1.0)
    method = ATTRIBUTIONS[name]()
    for one in run.windows():
        window = on_shared_cpu(one.window)
        shares = method.attribute(window)
        other = sum(share.energy for share in shares.others if share.account is Account.OTHER)
        dynamic = window.energy - window.energy // 4
        assert other == pytest.approx(dynamic * 0.2 if len(one.numbers) else dynamic * 200 / 201, abs=2)


def test_on_a_shared_cpu_an_adapter_request_pays_for_the_steps_it_slows() -> None:
    physics = DEVELOPMENT[2]
    extra = [asked(20.0 + 2 * turn, 60, adapter=bool(one)) for turn in range(15) for one in range(2)]
    run, numbers = among_others(physics, *extra, rate=0.5)
    seen = [Seen(on_shared_cpu(one.window), one.numbers) for one in run.windows()]
    method = ATTRIBUTIONS["automatic"]()
    paid = charge(run, method, seen).sum(axis=0)
    adapters = np.array([run.requests[number].asked.adapter for number in numbers])
    assert method.method == "phase_time"
    assert paid[numbers][adapters].sum() > 1.2 * paid[numbers][~adapters].sum()


def together(first: Run, second: Run) -> list[Window]:
    """Two engines on one device, each as fast as if it were alone."""
    windows = []
    for one, two in zip(first.windows(), second.windows(), strict=False):
        a, b = one.window, two.window
        if a.start != b.start or a.end != b.end:
            break
        idle = round(first.physics.idle_watts * (a.end - a.start) * 1e6)
        requests = {
            name: np.concatenate([getattr(a.requests, name), getattr(b.requests, name)])
            for name in RequestUses.__dataclass_fields__
            if name != "engine"
        }
        times = np.concatenate([a.tokens.times, b.tokens.times])
        order = np.argsort(times, kind="stable")
        windows.append(
            replace(
                a,
                energy=Microjoules(max(0, a.energy + b.energy - idle)),
                engines=[EngineUse(engine="a", up=True), EngineUse(engine="b", up=True)],
                requests=RequestUses(engine=np.repeat([0, 1], [len(a.requests), len(b.requests)]), **requests),
                tokens=TokenEvents(
                    times=times[order],
                    request=np.concatenate([a.tokens.request, b.tokens.request + len(a.requests)])[order],
                    tokens=np.ones(len(times)),
                ),
            )
        )
    return windows


def test_engines_that_share_a_device_are_fitted_together() -> None:
    physics = DEVELOPMENT[1]
    first = Run.of(physics, arrivals(physics, rate=0.7, seconds=60.0, seed=5), seed=5)
    second = Run.of(replace(physics, weight_bytes=1e9), arrivals(physics, rate=0.7, seconds=60.0, seed=6), seed=5)
    windows, method = together(first, second), PhaseTime()
    assert len(windows) > 55
    for window in windows:
        method.learn(window)
    paid = np.zeros(2)
    for window in windows:
        shares = method.attribute(window)
        assert shares.total == window.energy
        paid += np.bincount(window.requests.engine, shares.requests * 1e-6, 2)
    end = windows[-1].end - windows[0].start
    truth = [sum(one.joules for one in run.requests if one.done_at < end) for run in (first, second)]
    # Idle watts that both need at the same time are shared: each pays less than alone, in proportion.
    assert paid[0] / paid[1] == pytest.approx(truth[0] / truth[1], rel=0.1)
    assert method.confidence < 0.7


def alone_but_hidden(run: Run, hidden: set[int]) -> list[Seen]:
    """What this gateway sees when others send the hidden requests."""
    seen = []
    for one in run.windows():
        window = one.window
        kept = np.array([number not in hidden for number in one.numbers], np.bool_)
        columns = {name: getattr(window.requests, name)[kept] for name in RequestUses.__dataclass_fields__}
        ours = kept[window.tokens.request]
        engine = replace(window.engines[0], foreign_millitokens=1000 * int(np.count_nonzero(~ours)))
        tokens = TokenEvents(
            times=window.tokens.times[ours],
            request=(np.cumsum(kept) - 1)[window.tokens.request[ours]],
            tokens=window.tokens.tokens[ours],
        )
        seen.append(
            Seen(replace(window, engines=[engine], requests=RequestUses(**columns), tokens=tokens), one.numbers[kept])
        )
    return seen


def unattributed(method: Attribution, seen: list[Seen]) -> float:
    shares = [method.attribute(one.window) for one in seen]
    return sum(share.energy * 1e-6 for one in shares for share in one.others if share.account is Account.UNATTRIBUTED)


@METHODS
def test_what_went_past_the_gateway_is_unattributed(name: str, run_of: Callable[[int, float], Run]) -> None:
    run = run_of(0, 2.0)
    hidden = {number for number in range(len(run.requests)) if number % 2}
    seen, method = alone_but_hidden(run, hidden), ATTRIBUTIONS[name]()
    for one in seen:
        method.learn(one.window)
    truth = sum(run.requests[number].joules for number in hidden)
    assert unattributed(method, seen) == pytest.approx(truth, rel=0.3)


def test_engine_shared_with_others_for_long_is_priced_by_its_counters(run_of: Callable[[int, float], Run]) -> None:
    run = run_of(0, 2.0)
    seen = alone_but_hidden(run, {number for number in range(len(run.requests)) if number % 2})
    method = ATTRIBUTIONS["automatic"]()
    charge(run, method, seen[:50])
    assert method.method == "counter_price"
    assert method.confidence < 0.5


def test_answers_that_come_whole_are_charged_by_their_time() -> None:
    physics = DEVELOPMENT[1]
    sent = arrivals(physics, rate=2.0, seconds=60.0, seed=4)
    run = Run.of(physics, [replace(one, streamed=number % 3 > 0) for number, one in enumerate(sent)], seed=4)
    paid = charge(run, PhaseTime(), list(run.windows())).sum(axis=0)
    truth = np.array([one.joules for one in run.requests])
    whole = np.array([not one.asked.streamed for one in run.requests])
    assert paid[whole].sum() == pytest.approx(truth[whole].sum(), rel=0.1)
    assert paid[~whole].sum() == pytest.approx(truth[~whole].sum(), rel=0.1)
