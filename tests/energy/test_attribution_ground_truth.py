"""Phase time against a simulator that knows the truth, on physics that no constant was chosen by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest

from server.energy.attribution import ATTRIBUTIONS, Account
from server.energy.attribution import engine_time as engine_time_module
from server.energy.attribution import step_time as step_time_module
from server.energy.attribution.attribution import Floats
from server.energy.attribution.engine_time import EngineTime
from server.energy.attribution.iterations import Iterations
from server.energy.attribution.phase_time import PhaseTime
from server.energy.attribution.pieces import Members
from server.energy.attribution.power import FIXED, GROWTH
from tests.energy.simulator.physics import TESTS, Physics
from tests.energy.simulator.run import Run, Seen, simulate
from tests.energy.simulator.score import Score, charge, score

WORST_TENANT = 0.015
WORST_MEDIAN = 0.025
SECONDS = 90.0
LESS = 45.0
"""Is enough to see that a bound is missed."""

Runs = Callable[..., tuple[Run, Sequence[Seen]]]

PHYSICS = pytest.mark.parametrize("physics", TESTS, ids=lambda physics: physics.name)


@pytest.fixture(scope="module")
def runs() -> Runs:
    """Physics, rate, seconds → each simulated once."""

    @cache
    def run_of(physics: Physics, rate: int, seconds: float = SECONDS) -> tuple[Run, Sequence[Seen]]:
        run = simulate(physics, rate=rate, seconds=seconds, seed=1)
        return run, list(run.windows())

    return run_of


def fails(one: Score) -> bool:
    return one.tenant > WORST_TENANT or one.median > WORST_MEDIAN


@PHYSICS
@pytest.mark.parametrize("rate", [1, 2, 5])
def test_tenants_and_requests_are_charged_what_they_caused(runs: Runs, physics: Physics, rate: int) -> None:
    run, seen = runs(physics, rate)
    one = score(run, PhaseTime(), seen)
    assert one.tenant <= WORST_TENANT
    assert one.median <= WORST_MEDIAN


@PHYSICS
def test_automatic_choice_ends_with_the_same_shares(runs: Runs, physics: Physics) -> None:
    run, seen = runs(physics, 2)
    method = ATTRIBUTIONS["automatic"]()
    assert not fails(score(run, method, seen))
    assert method.method == "phase_time"
    assert method.confidence > 0.8


@PHYSICS
def test_idle_time_is_nobodys(runs: Runs, physics: Physics) -> None:
    run, seen = runs(physics, 1)
    method = PhaseTime()
    for one in seen:
        method.learn(one.window)
    idle = sum(
        share.energy * 1e-6
        for one in seen
        for share in method.attribute(one.window).others
        if share.account is Account.IDLE
    )
    assert idle == pytest.approx(run.idle_joules, rel=0.05)


@PHYSICS
def test_without_the_split_by_phase_the_bound_is_missed(
    runs: Runs, physics: Physics, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_prefill(self: EngineTime, iterations: Iterations, *_: object) -> Floats:
        return np.zeros(len(iterations.pieces))

    monkeypatch.setattr(EngineTime, "_prefill_s", no_prefill)
    run, seen = runs(physics, 5, LESS)
    assert fails(score(run, PhaseTime(), seen))


def proportional(decode: Floats, prefill: Floats) -> None:
    fixed, grown = decode[FIXED].sum() + prefill[FIXED].sum(), decode[GROWTH].sum()
    prefill[FIXED] = 0.0
    decode[FIXED] = decode[GROWTH] * (fixed / grown if grown else 0.0)


def dropped(decode: Floats, prefill: Floats) -> None:
    decode[FIXED] = prefill[FIXED] = 0.0


@PHYSICS
@pytest.mark.parametrize("mutate", [proportional, dropped])
def test_unless_the_fixed_part_is_shared_equally_the_bound_is_missed(
    runs: Runs, physics: Physics, mutate: Callable[[Floats, Floats], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    share_steps = EngineTime._share_steps

    def mutated(
        self: EngineTime, iterations: Iterations, prefilling: Members, steps: Floats, into: tuple[Floats, Floats]
    ) -> Floats:
        by_piece = share_steps(self, iterations, prefilling, steps, into)
        mutate(*into)
        return by_piece

    monkeypatch.setattr(EngineTime, "_share_steps", mutated)
    run, seen = runs(physics, 5, LESS)
    assert fails(score(run, PhaseTime(), seen))


@PHYSICS
def test_without_the_adapter_term_the_bound_is_missed(
    runs: Runs, physics: Physics, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = step_time_module.columns

    def without_adapters(iterations: Iterations) -> Floats:
        return columns(iterations) * np.array([1.0, 1.0, 1.0, 0.0])

    monkeypatch.setattr(step_time_module, "columns", without_adapters)
    monkeypatch.setattr(engine_time_module, "columns", without_adapters)
    run, seen = runs(physics, 5, LESS)
    one = score(run, PhaseTime(), seen)
    assert fails(one)
    assert one.adapters < -0.05


@PHYSICS
def test_longer_windows_tell_the_same_of_tenants(runs: Runs, physics: Physics) -> None:
    run, seen = runs(physics, 1)
    short, long = charge(run, PhaseTime(), seen), charge(run, PhaseTime(), list(run.windows(2.0)))
    for name in ("reader", "writer"):
        mine = [one.asked.tenant == name for one in run.requests]
        assert long[:, mine].sum() == pytest.approx(short[:, mine].sum(), rel=0.02)
