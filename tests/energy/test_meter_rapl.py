"""Packages and memory of recorded powercap trees."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.energy import Reading
from server.energy.rapl import RaplMeter
from server.errors import MeterError
from tests.fakes.clock import FakeClock
from tests.fakes.powercap import AMD_EPYC, INTEL_LAPTOP, INTEL_SERVER, Powercap

_NOBODY = 65534


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def server(tmp_path: Path) -> Powercap:
    return Powercap(tmp_path, INTEL_SERVER)


@pytest.fixture
def meter(server: Powercap, clock: FakeClock) -> RaplMeter:
    return RaplMeter(clock=clock, root=server.root)


def joules(reading: Reading) -> dict[str, float]:
    return {device.device: device.joules for device in reading.devices}


@pytest.mark.parametrize(
    ("zones", "devices"),
    [
        (INTEL_SERVER, {"package:0": "package", "dram:0": "dram", "package:1": "package", "dram:1": "dram"}),
        (INTEL_LAPTOP, {"package:0": "package"}),
        (AMD_EPYC, {"package:0": "package", "package:1": "package"}),
        ({"intel-rapl:0": ("package-0-die-1", 1000)}, {"package:0-die-1": "package"}),
    ],
)
def test_devices_are_packages_and_their_memory_and_nothing_is_counted_twice(
    tmp_path: Path, clock: FakeClock, zones: dict[str, tuple[str, int]], devices: dict[str, str]
) -> None:
    reading = RaplMeter(clock=clock, root=Powercap(tmp_path, zones).root).read()
    assert {device.device: device.scope for device in reading.devices} == devices
    assert all(device.by_cpu_time for device in reading.devices)
    assert not reading.missing


def test_microjoules_become_joules(meter: RaplMeter, server: Powercap) -> None:
    server.set("intel-rapl:1:0", 2_500_001)
    assert joules(meter.read()) == {"package:0": 1.0, "dram:0": 1.0, "package:1": 1.0, "dram:1": 2.500001}


def test_counter_that_wraps_goes_on_rising(meter: RaplMeter, server: Powercap, clock: FakeClock) -> None:
    server.set("intel-rapl:0", 262_143_000_000)
    before = joules(meter.read())["package:0"]
    clock.advance(1.0)
    server.use("intel-rapl:0", 200_000_000)
    clock.advance(1.0)
    server.use("intel-rapl:0", 200_000_000)
    assert joules(meter.read())["package:0"] == pytest.approx(before + 400.0)


def test_counter_that_begins_anew_after_sleep_is_no_wrap(meter: RaplMeter, server: Powercap, clock: FakeClock) -> None:
    server.set("intel-rapl:0", 100_000_000_000)
    before = joules(meter.read())["package:0"]
    clock.advance(1.0)
    server.set("intel-rapl:0", 3_000_000)
    assert joules(meter.read())["package:0"] == pytest.approx(before + 3.0)


def test_zone_that_was_not_read_for_longer_than_a_wrap_takes_is_missing_once(
    meter: RaplMeter, server: Powercap, clock: FakeClock
) -> None:
    meter.read()
    clock.advance(100.0)  # 65 kJ may have gone through the memory's counter, as far as it can tell
    reading = meter.read()
    assert joules(reading).keys() == {"package:0", "package:1"}
    assert reading.missing.keys() == {"dram:0", "dram:1"}
    assert joules(meter.read()).keys() == {"package:0", "dram:0", "package:1", "dram:1"}


def test_zone_that_vanishes_is_missing_and_found_again(meter: RaplMeter, server: Powercap) -> None:
    meter.read()
    server.remove("intel-rapl:1")
    server.remove("intel-rapl:1:0")
    reading = meter.read()
    assert joules(reading).keys() == {"package:0", "dram:0"}
    assert reading.missing.keys() == {"package:1", "dram:1"}
    assert meter.read().missing.keys() == {"package:1", "dram:1"}
    shutil.rmtree(server.root.parent / "devices" / "intel-rapl" / "intel-rapl:1")
    server.add("intel-rapl:1", *INTEL_SERVER["intel-rapl:1"])
    reading = meter.read()
    assert joules(reading).keys() == {"package:0", "dram:0", "package:1"}
    assert reading.missing.keys() == {"dram:1"}


@pytest.mark.parametrize("content", ["", "nonsense\n"])
def test_counter_that_says_nonsense_is_missing_not_zero(meter: RaplMeter, server: Powercap, content: str) -> None:
    meter.read()
    (server.root / "intel-rapl:0" / "energy_uj").write_text(content)
    reading = meter.read()
    assert "package:0" not in joules(reading)
    assert "cannot be read" in reading.missing["package:0"]


def test_zone_without_a_range_or_a_name_is_no_device(meter: RaplMeter, server: Powercap) -> None:
    (server.root / "intel-rapl:0" / "max_energy_range_uj").unlink()
    (server.root / "intel-rapl:1:0" / "name").unlink()
    assert joules(meter.read()).keys() == {"dram:0", "package:1"}


def test_host_without_rapl_says_so(tmp_path: Path, clock: FakeClock) -> None:
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(MeterError, match=r"no RAPL package.*cpu_estimate"):
            RaplMeter(clock=clock, root=root).read()


def test_driver_that_is_unloaded_is_a_meter_error(meter: RaplMeter, server: Powercap) -> None:
    meter.read()
    for zone in INTEL_SERVER:
        server.remove(zone)
    for _ in range(2):
        with pytest.raises(MeterError, match="package:1: "):
            meter.read()


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder for a tree, and no rights beyond those of its files."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    before = os.geteuid()
    try:
        yield folder
    finally:
        if before == 0:
            os.seteuid(0)
        shutil.rmtree(folder)


def test_counters_for_root_only_are_a_meter_error_that_says_how_to_allow_it(as_nobody: Path, clock: FakeClock) -> None:
    server = Powercap(as_nobody, INTEL_SERVER)
    meter = RaplMeter(clock=clock, root=server.root)
    for zone in INTEL_SERVER:
        (server.root / zone / "energy_uj").chmod(0o400 if os.geteuid() == 0 else 0o000)
    if os.geteuid() == 0:
        os.seteuid(_NOBODY)
    with pytest.raises(MeterError, match=r"Only root.*chmod a\+r .*energy_uj.*cpu_estimate"):
        meter.read()
