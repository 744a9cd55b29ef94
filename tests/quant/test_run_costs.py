"""Seconds, memory and joules of making something."""

from __future__ import annotations

from pathlib import Path

import pytest

from quant.errors import QuantError
from quant.run_costs import counting_costs
from quant.run_energy import ControlCounter, RaplCounter, energy_counter
from tests.fakes.powercap import INTEL_LAPTOP, INTEL_SERVER, Powercap


def test_joules_are_those_of_packages_and_memory_between_two_moments(tmp_path: Path) -> None:
    tree = Powercap(tmp_path, INTEL_SERVER)
    with counting_costs(RaplCounter(tree.root)) as costs:
        tree.set("intel-rapl:0", 3_500_000)
        tree.set("intel-rapl:1:0", 1_250_000)
    assert costs.joules == pytest.approx(2.75)
    assert costs.energy_meter == "rapl"


def test_counter_that_wraps_is_made_up_for(tmp_path: Path) -> None:
    tree = Powercap(tmp_path, {"intel-rapl:0": ("package-0", 9_999_999)})
    tree.set("intel-rapl:0", 9_000_000)
    counter = RaplCounter(tree.root)
    tree.set("intel-rapl:0", 500_000)
    assert counter.joules() == pytest.approx(1.5)


def test_cores_and_the_platform_are_not_counted_a_second_time(tmp_path: Path) -> None:
    tree = Powercap(tmp_path, INTEL_LAPTOP)
    counter = RaplCounter(tree.root)
    for zone in INTEL_LAPTOP:
        tree.set(zone, 2_000_000)
    assert counter.joules() == pytest.approx(1.0)


def test_counter_that_did_not_move_is_unknown_and_not_zero(tmp_path: Path) -> None:
    with counting_costs(RaplCounter(Powercap(tmp_path, INTEL_SERVER).root)) as costs:
        pass
    assert costs.joules is None
    assert costs.seconds > 0


def test_machine_without_a_counter_has_no_joules(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no package"):
        RaplCounter(tmp_path)
    with counting_costs(None) as costs:
        pass
    assert (costs.joules, costs.energy_meter) == (None, None)


def test_memory_that_was_given_back_is_still_the_peak() -> None:
    with counting_costs(None) as costs:
        block = bytearray(b"x") * 150_000_000
        while (costs.peak_memory_bytes or 0) < len(block):  # until the watch has seen it; the test's timeout bounds it
            pass
        size = len(block)
        del block
    assert costs.peak_memory_bytes is not None
    assert costs.peak_memory_bytes > size


def test_control_plane_is_asked_before_the_work_begins() -> None:
    with pytest.raises(QuantError, match="cannot be read"):
        energy_counter("http://127.0.0.1:9", None)
    with pytest.raises(QuantError, match="no HTTP address"):
        ControlCounter("file:///etc/passwd", None)
