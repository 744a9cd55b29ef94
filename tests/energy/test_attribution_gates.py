"""When phase time cannot be trusted, another method stands in, and says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from server.energy.attribution import ATTRIBUTIONS, TokenEvents, Window
from server.energy.attribution.automatic import Automatic
from server.energy.attribution.gates import closed_gates
from server.energy.attribution.phase_time import PhaseTime
from server.units import Microjoules
from tests.energy.simulator.physics import DEVELOPMENT
from tests.energy.simulator.run import ENGINE, simulate


@pytest.fixture(scope="module")
def windows() -> Sequence[Window]:
    run = simulate(DEVELOPMENT[1], rate=2.0, seconds=130.0, seed=2)
    return [seen.window for seen in run.windows()][:130]


def moved(window: Window, times: np.ndarray) -> Window:
    """Its tokens at other times, but within it."""
    times = np.clip(times, window.start, np.nextafter(window.end, -np.inf))
    order = np.argsort(times, kind="stable")
    tokens = TokenEvents(times=times[order], request=window.tokens.request[order], tokens=window.tokens.tokens[order])
    return replace(window, tokens=tokens)


def coalesced(window: Window) -> Window:
    """The reader wakes up only ten times a second."""
    return moved(window, np.ceil(window.tokens.times / 0.1) * 0.1)


def jittered(window: Window) -> Window:
    random = np.random.default_rng(round(window.start))
    return moved(window, window.tokens.times + random.uniform(0.0, 0.02, len(window.tokens)))


def methods_used(method: Automatic, windows: Sequence[Window]) -> list[str]:
    return [method.attribute(window).method for window in windows]


def test_new_device_begins_with_tokens_and_goes_on_to_phase_time(windows: Sequence[Window]) -> None:
    used = methods_used(Automatic(), windows[:80])
    assert used[0] == "token_share"
    assert used[-1] == "phase_time"
    assert "phase_time" not in used[:30]


def test_whoever_learns_first_attributes_well_from_the_first_window(windows: Sequence[Window]) -> None:
    method = Automatic()
    for window in windows:
        method.learn(window)
    assert set(methods_used(method, windows[:20])) == {"phase_time"}


@pytest.mark.parametrize("spoil", [coalesced, jittered])
def test_arrivals_that_tell_nothing_close_the_gate_and_good_ones_open_it_again(
    windows: Sequence[Window], spoil: object
) -> None:
    method = Automatic()
    assert methods_used(method, windows[:60])[-1] == "phase_time"
    spoilt = methods_used(method, [spoil(window) for window in windows[60:75]])  # type: ignore[operator]
    assert spoilt[0] == "phase_time"  # one window may be an accident
    assert spoilt[-1] == "five_term"
    assert method.confidence < 0.6
    assert methods_used(method, windows[75:])[-1] == "phase_time"


def test_gates_say_why_they_are_closed(windows: Sequence[Window]) -> None:
    method = PhaseTime()
    for window in windows[:10]:
        method.learn(window)
    assert any("of 30" in reason for reason in closed_gates(method, windows[9]))
    for window in windows:
        method.learn(window)
    assert closed_gates(method, windows[-1]) == []
    for window in windows[:60]:
        method.learn(coalesced(window))
    assert any("came with the one before" in reason for reason in closed_gates(method, windows[-1]))
    for window in windows:
        method.learn(window)
    assert closed_gates(method, windows[-1]) == []
    for window in windows[:60]:
        method.learn(jittered(window))
    assert any("of the streams" in reason for reason in closed_gates(method, windows[-1]))


def test_meter_that_has_nothing_to_do_with_the_load_closes_the_gate(windows: Sequence[Window]) -> None:
    random, method = np.random.default_rng(0), PhaseTime()
    for window in windows:
        method.learn(replace(window, energy=Microjoules(round(random.uniform(1e6, 4e8)))))
    assert any("R²" in reason for reason in closed_gates(method, windows[-1]))


def test_marginal_cost_of_a_token_is_far_below_its_average_cost(windows: Sequence[Window]) -> None:
    method = ATTRIBUTIONS["automatic"]()
    assert isinstance(method, Automatic)
    assert method.marginal_output_token(ENGINE) is None
    for window in windows:
        method.learn(window)
    marginal = method.marginal_output_token(ENGINE)
    joules = sum(window.energy for window in windows)
    tokens = sum(len(window.tokens) for window in windows)
    assert marginal is not None
    assert 0.0 < marginal < 0.3 * joules / tokens
