"""EfficientLLM's training metrics, and several trainings side by side."""

from __future__ import annotations

import itertools
import os
import time

import pytest

from quant.tune.gauges import Gauges, OnCpu, memory_limit_bytes
from tests.fakes.clock import FakeClock


class Scripted:
    """A machine whose readings are given."""

    def __init__(self, memory: list[float], busy: list[float | None]) -> None:
        self._memory = iter(memory)
        self._busy = iter([None, *busy])  # the first reading only starts the count

    def memory_share(self) -> float:
        return next(self._memory)

    def busy(self) -> float | None:
        return next(self._busy)


def trained(gauges: Gauges, clock: FakeClock, *seconds: float) -> None:
    for passed in seconds:
        clock.advance(passed)
        gauges.step(samples=4, tokens=100)


def test_means_are_weighted_by_time() -> None:
    clock = FakeClock()
    machine = Scripted([0.1, 0.4], [1.0, 0.5])
    gauges = Gauges(machine, clock=clock.monotonic, joules=itertools.chain([10.0], [70.0]).__next__)
    trained(gauges, clock, 1.0, 3.0)
    assert gauges.report(2_000_000) == {
        "amu_ratio": 0.325,
        "pcu_ratio": 0.625,
        "al_seconds_per_step": 2.0,
        "st_samples_per_second": 2.0,
        "st_samples_per_second_per_million_parameters": 1.0,
        "tt_tokens_per_second": 50.0,
        "aec_watts": 15.0,
        "joules": 60.0,
        "joules_per_sample": 7.5,
    }


def test_without_a_meter_energy_is_absent_and_not_zero() -> None:
    clock = FakeClock()
    gauges = Gauges(Scripted([0.1], [None]), clock=clock.monotonic, joules=lambda: None)
    trained(gauges, clock, 1.0)
    found = gauges.report(1_000_000)
    assert not {"aec_watts", "joules", "joules_per_sample", "pcu_ratio"} & set(found)
    assert found["amu_ratio"] == 0.1


def test_nothing_is_known_before_the_first_step() -> None:
    gauges = Gauges(Scripted([], []), clock=FakeClock().monotonic, joules=lambda: None)
    assert gauges.report(1) == {}


def test_cpu_that_computes_all_the_time_is_one_busy_core() -> None:
    clock = FakeClock()
    machine = OnCpu.now(clock.monotonic)
    before = time.process_time()
    while time.process_time() - before < 0.2:
        pass
    clock.advance(0.2)
    busy = machine.busy()
    assert busy is not None
    assert busy == pytest.approx(1 / len(os.sched_getaffinity(0)), rel=0.5)
    assert 0 < machine.memory_share() < 1


def test_memory_limit_is_never_more_than_the_machine_has() -> None:
    assert 0 < memory_limit_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
