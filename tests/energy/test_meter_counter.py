"""Counters that wrap and restart become totals that never fall and are never too high."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.energy.counter import EnergyCounter
from server.units import Microjoules, Seconds, Watts

MOST = Watts(500.0)

steps = st.lists(st.tuples(st.floats(0.01, 30.0), st.floats(0.0, 1.0)), min_size=1, max_size=30)
"""Time between two readings, and the power in it as a part of the most."""


def energy(step: tuple[float, float]) -> int:
    return int(step[0] * step[1] * MOST * 1e6)


@given(steps=steps, starts_at=st.integers(0, 10**12), wraps_at=st.integers(16_000_000_000, 300_000_000_000))
def test_counter_that_wraps_gives_the_true_total(
    steps: list[tuple[float, float]], starts_at: int, wraps_at: int
) -> None:
    counter, at, true = EnergyCounter(most=MOST, wraps_at=Microjoules(wraps_at)), 0.0, starts_at % wraps_at
    begins = true
    assert counter.advance(Microjoules(true), Seconds(at)) == begins / 1e6
    for step in steps:
        at += step[0]
        true += energy(step)
        assert counter.advance(Microjoules(true % wraps_at), Seconds(at)) == true / 1e6


@given(
    steps=st.lists(st.tuples(st.floats(0.01, 300.0), st.floats(0.0, 1.0), st.booleans()), max_size=30),
    wraps_at=st.none() | st.just(65_000_000_000),
)
def test_counter_that_restarts_gives_a_total_that_never_falls_and_is_at_most_the_truth(
    steps: list[tuple[float, float, bool]], wraps_at: int | None
) -> None:
    counter = EnergyCounter(most=MOST, wraps_at=None if wraps_at is None else Microjoules(wraps_at))
    at, true, count, total = 0.0, 0, 0, 0.0
    assert counter.advance(Microjoules(0), Seconds(at)) == 0.0
    slack = 0.0
    for seconds, load, restarts in steps:
        at += seconds
        used = energy((seconds, load))
        true += used
        # A restart in the middle of the step: what was counted before it is lost.
        count = used // 2 if restarts else count + used
        if wraps_at is not None and restarts:
            slack += MOST * (seconds + 1.0)  # may look like a wrap, but never like more than could be used
        now = counter.advance(Microjoules(count % wraps_at if wraps_at else count), Seconds(at))
        if now is not None:
            assert total <= now <= true / 1e6 + slack + 1e-6
            total = now


def test_jump_that_no_device_can_make_is_not_known_and_not_counted() -> None:
    counter = EnergyCounter(most=MOST)
    counter.advance(Microjoules(5_000_000_000), Seconds(0.0))
    assert counter.advance(Microjoules(0), Seconds(1.0)) == 5000.0  # a slip of the driver
    assert counter.advance(Microjoules(5_000_900_000), Seconds(2.0)) is None
    assert counter.advance(Microjoules(5_001_000_000), Seconds(3.0)) == 5000.1


def test_time_in_which_a_counter_may_have_wrapped_twice_is_not_known() -> None:
    counter = EnergyCounter(most=MOST, wraps_at=Microjoules(1_000_000_000))
    counter.advance(Microjoules(0), Seconds(0.0))
    assert counter.advance(Microjoules(7_000_000), Seconds(3.0)) is None
    assert counter.advance(Microjoules(8_000_000), Seconds(3.1)) == 1.0
