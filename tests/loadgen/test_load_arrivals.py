"""Arrival processes keep their laws, whatever the seed, the rate and the horizon."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen._arrivals import ARRIVALS, TRACE, Times, arrival_process, options_of
from loadgen._errors import LoadError

_TIMES = np.cumsum(np.random.default_rng(5).exponential(0.05, size=4000))
_PROCESSES = sorted(ARRIVALS)


def process(name: str, options: str = "") -> Any:
    return arrival_process(name, options, times_s=_TIMES if name == TRACE else None)


def schedule(name: str, rate: float, horizon: float, *, seed: int = 1, options: str = "") -> Times:
    times: Times = process(name, options).schedule(rate, horizon, np.random.default_rng(seed))
    return times


def farthest(values: Times, cdf: Callable[[float], float]) -> float:
    """Kolmogorov and Smirnov's statistic, times the root of the sample's size."""
    ordered = np.sort(values)
    expected = np.array([cdf(float(value)) for value in ordered])
    ranks = np.arange(1, len(ordered) + 1) / len(ordered)
    return float(np.max(np.maximum(ranks - expected, expected - (ranks - 1 / len(ordered)))) * math.sqrt(len(ordered)))


SURELY_OTHER = 1.95
"""Kolmogorov's distribution exceeds it once in a thousand samples."""


def exponential(value: float) -> float:
    return 1 - math.exp(-value)


@pytest.mark.parametrize("name", _PROCESSES)
@given(rate=st.floats(0.01, 300), horizon=st.floats(0.1, 60), seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_schedule_is_ascending_within_its_horizon_and_decided_by_its_seed(
    name: str, rate: float, horizon: float, seed: int
) -> None:
    first, second = (schedule(name, rate, horizon, seed=seed) for _ in range(2))
    assert np.array_equal(first, second)
    assert np.all(np.diff(first) >= 0)
    assert np.all((first >= 0) & (first < horizon))


@pytest.mark.parametrize("name", sorted({*_PROCESSES} - {"constant", TRACE}))
def test_another_seed_gives_another_schedule(name: str) -> None:
    assert not np.array_equal(schedule(name, 50.0, 20.0, seed=1), schedule(name, 50.0, 20.0, seed=2))


@pytest.mark.parametrize("name", _PROCESSES)
@pytest.mark.parametrize("horizon", [30.0, 100.0])
def test_as_many_arrive_as_the_process_says(name: str, horizon: float) -> None:
    counts = [len(schedule(name, 40.0, horizon, seed=seed)) for seed in range(40)]
    expected = process(name).expected(40.0, horizon)
    # Five standard errors of what was seen; renewals with heavy tails begin with a gap, not within one.
    assert np.mean(counts) == pytest.approx(expected, abs=float(5 * np.std(counts) / math.sqrt(40) + 4))


@pytest.mark.parametrize("name", ["constant", "poisson", "gamma", "weibull", "sinus", "on-off"])
def test_rate_is_the_mean_of_every_process_that_only_swings_around_it(name: str) -> None:
    assert process(name).expected(10.0, 600.0) == pytest.approx(6000)


def test_constant_arrivals_are_at_equal_distances() -> None:
    assert schedule("constant", 4.0, 1.0).tolist() == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    ("name", "options", "cdf"),
    [
        ("poisson", "", exponential),
        # P(1/2, x) = erf(√x), with scale 2 for a mean of 1; P(2, x) = 1 - (1 + x)·exp(-x), with scale 1/2.
        ("gamma", "shape=0.5", lambda gap: math.erf(math.sqrt(gap / 2))),
        ("gamma", "shape=2", lambda gap: 1 - (1 + 2 * gap) * math.exp(-2 * gap)),
        ("weibull", "k=0.42", lambda gap: 1 - math.exp(-((gap * math.gamma(1 + 1 / 0.42)) ** 0.42))),
        ("weibull", "k=2", lambda gap: 1 - math.exp(-((gap * math.gamma(1.5)) ** 2))),
    ],
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_gaps_have_the_distribution_of_their_name(
    name: str, options: str, cdf: Callable[[float], float], seed: int
) -> None:
    times = schedule(name, 20.0, 200.0, seed=seed, options=options)
    gaps = np.diff(times, prepend=0.0) * 20.0
    assert farthest(gaps, cdf) < SURELY_OTHER


@pytest.mark.parametrize(
    ("name", "options", "cumulated"),
    [
        ("ramp", "start=0,end=2", lambda t: t**2 / 100.0),
        ("spike", "factor=4,at=0.5,length=10", lambda t: t + 3 * min(max(t - 50.0, 0.0), 10.0)),
        ("sinus", "amplitude=1,period=50", lambda t: t + 50 / (2 * math.pi) * (1 - math.cos(2 * math.pi * t / 50))),
        ("step", "steps=2", lambda t: min(t, 50.0) / 2 + max(t - 50.0, 0.0)),
        ("on-off", "on=10,off=30", lambda t: 4 * (10 * (t // 40) + min(t % 40, 10.0))),
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_changing_rate_follows_its_curve(
    name: str, options: str, cumulated: Callable[[float], float], seed: int
) -> None:
    """In the time in which the expected number grows evenly, gaps are exponential."""
    times = schedule(name, 40.0, 100.0, seed=seed, options=options)
    gaps = np.diff([40.0 * cumulated(float(time)) for time in times], prepend=0.0)
    assert farthest(gaps, exponential) < SURELY_OTHER


def test_nothing_arrives_while_it_is_off() -> None:
    times = schedule("on-off", 50.0, 60.0, options="on=2,off=8")
    assert np.all(times % 10 <= 2.0 + 1e-6)


def test_trace_is_replayed_as_recorded_or_at_another_speed_or_rate() -> None:
    assert np.array_equal(schedule(TRACE, 0.0, 1e6), _TIMES)
    assert schedule(TRACE, 0.0, 1e6, options="speed=4") == pytest.approx(_TIMES / 4)
    squeezed = schedule(TRACE, 100.0, 1e6)
    assert (len(squeezed) - 1) / squeezed[-1] == pytest.approx(100.0)


def test_trace_is_scattered_within_the_grid_of_its_clock_alone() -> None:
    recorded = np.floor(_TIMES)
    process = arrival_process(TRACE, "grid=1", times_s=recorded)
    times = process.schedule(0.0, 1e6, np.random.default_rng(1))
    assert np.array_equal(np.sort(np.floor(times)), recorded)
    assert np.all(np.diff(times) > 0)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("gamma", "shap=1", "'gamma' has no option 'shap'; it has shape"),
        ("poisson", "shape=1", "'poisson' has no option 'shape'; it has none"),
        ("gamma", "shape=high", "shape='high' is no number"),
        ("gamma", "shape", "shape='' is no number"),
        ("gamma", "shape=0", r"shape is 0; it must be at least 0\.01"),
        ("gamma", "shape=nan", "shape is nan"),
        ("weibull", "k=inf", "k is inf"),
        ("sinus", "amplitude=1.5", "must be at least 0 and at most 1"),
        ("on-off", "on=0", r"on is 0; it must be above 0 \(seconds of load\)"),
        ("gamma", "shape=1,shape=2", "'shape' is given twice"),
        ("gama", "", "--arrivals 'gama' is none of constant, poisson"),
    ],
)
def test_option_that_makes_no_sense_is_refused_by_its_name(name: str, options: str, says: str) -> None:
    with pytest.raises(LoadError, match=says):
        arrival_process(name, options)


@pytest.mark.parametrize("name", _PROCESSES)
def test_every_option_takes_its_own_default(name: str) -> None:
    told = ",".join(f"{option.name}={option.default}" for option in options_of(ARRIVALS[name]).values())
    assert [option.check(option.default) for option in options_of(ARRIVALS[name]).values()].count(None) == told.count(
        "="
    )
    arrival_process(name, told)
