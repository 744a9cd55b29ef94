"""Every kind of meter keeps the contract; which ones are taken where."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from server.config import EnergySettings, MeterSettings
from server.energy import METERS, EnergyMeter, ProcessTable, Reading, discover
from server.energy.cpu_estimate import CpuEstimateMeter
from server.energy.nvml import NvmlMeter
from server.energy.rapl import RaplMeter
from server.errors import ConfigError, MeterError
from tests.energy.test_processes import Proc
from tests.fakes.clock import FakeClock
from tests.fakes.meter_rigs import JOULES, RIGS, Place, Rig
from tests.fakes.nvml_library import NvmlLibrary
from tests.fakes.powercap import AMD_EPYC, Powercap

# --- the contract -----------------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=METERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rig(kind: str, clock: FakeClock, tmp_path: Path, nvml: NvmlLibrary) -> Iterator[Rig]:
    with RIGS[kind](Place(folder=tmp_path, clock=clock, nvml=nvml)) as rig:
        yield rig
        rig.meter.close()


def total(reading: Reading) -> float:
    (device,) = reading.devices
    return device.joules


def test_label_of_a_meter_is_its_kind_in_the_table_and_maybe_a_name(kind: str, rig: Rig) -> None:
    assert rig.meter.kind.partition(":")[0] == kind


def test_meter_counts_what_its_device_uses(rig: Rig) -> None:
    before = total(rig.meter.read())
    for times in (1, 2, 3):
        rig.work()
        assert total(rig.meter.read()) == pytest.approx(before + times * JOULES)


def test_device_that_rests_uses_nothing_and_keeps_its_name_and_scope(rig: Rig) -> None:
    first, second = rig.meter.read(), rig.meter.read()
    assert first.devices == second.devices
    assert first.devices[0].device
    assert first.devices[0].scope
    assert not first.missing


def test_reading_is_of_now_or_of_before(rig: Rig, clock: FakeClock) -> None:
    assert rig.meter.read().at <= clock.monotonic()


def test_lost_device_is_a_meter_error_that_says_what_to_do(rig: Rig) -> None:
    rig.meter.read()
    rig.lose()
    for _ in range(2):
        with pytest.raises(MeterError, match=r"\w+ \w+"):
            rig.meter.read()


def test_device_that_comes_back_goes_on_where_it_was(rig: Rig) -> None:
    rig.work()
    before = total(rig.meter.read())
    rig.lose()
    with pytest.raises(MeterError):
        rig.meter.read()
    if rig.find is None:
        return  # a recording that has ended
    rig.find()
    rig.work()
    assert total(rig.meter.read()) == pytest.approx(before + JOULES)


def test_meter_that_was_closed_reads_on_and_its_total_does_not_fall(rig: Rig) -> None:
    rig.work()
    before = total(rig.meter.read())
    rig.meter.close()
    rig.meter.close()
    try:
        after = total(rig.meter.read())
    except MeterError:
        rig.work()  # a node that has to be asked first
        after = total(rig.meter.read())
    assert after >= before


def test_meter_on_this_host_reads_or_says_why_not(kind: str, tmp_path: Path) -> None:
    settings = MeterSettings(kind=kind, url="http://127.0.0.1:9", path=tmp_path / "absent")
    clock = FakeClock()
    meter = METERS[kind](settings, clock, ProcessTable())
    try:
        assert meter.read().devices
    except MeterError as exc:
        assert str(exc)  # noqa: PT017  # this host may lack the device, and then says so
    finally:
        meter.close()


# --- the estimate -----------------------------------------------------------------------------------------------------


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


@pytest.fixture
def processes(proc: Proc) -> ProcessTable:
    return ProcessTable(proc.root, ticks_per_second=100)


@pytest.fixture
def estimate(clock: FakeClock, processes: ProcessTable) -> CpuEstimateMeter:
    settings = MeterSettings(kind="cpu_estimate", idle_watts=20.0, watts_per_core=8.0)
    return CpuEstimateMeter(settings, clock=clock, processes=processes)


def test_estimate_is_idle_watts_and_watts_for_each_busy_core(
    estimate: CpuEstimateMeter, proc: Proc, clock: FakeClock
) -> None:
    proc.cpu(user=5000)
    (first,) = estimate.read().devices
    clock.advance(10.0)
    proc.cpu(user=6500)
    (second,) = estimate.read().devices
    assert first.joules == 0.0
    assert second.joules == 20.0 * 10 + 8.0 * 15
    assert second.baseline_joules == 200.0
    assert (second.device, second.scope, second.by_cpu_time) == ("cpu", "estimated", True)


def test_estimate_does_not_fall_when_the_host_sets_its_counters_back(
    estimate: CpuEstimateMeter, proc: Proc, clock: FakeClock
) -> None:
    proc.cpu(user=1000)
    estimate.read()
    proc.cpu(user=1500)
    before = estimate.read().devices[0].joules
    proc.cpu(user=1400)
    assert estimate.read().devices[0].joules == before


# --- which are taken --------------------------------------------------------------------------------------------------


class Host:
    """A host whose GPUs and packages the test takes away."""

    def __init__(self, nvml: NvmlLibrary, folder: Path, clock: FakeClock, processes: ProcessTable) -> None:
        self.nvml = nvml
        self.powercap = Powercap(folder / "powercap", AMD_EPYC)
        self._clock = clock
        self._processes = processes
        self.closed_at_end: list[EnergyMeter] = []

    def without_gpu(self) -> None:
        self.nvml.host(init_error=9)

    def without_packages(self) -> None:
        for zone in AMD_EPYC:
            self.powercap.remove(zone)

    def discover(self, settings: EnergySettings | None = None, processes: ProcessTable | None = None) -> list[str]:
        """The kinds that are found."""
        table: dict[str, Any] = {
            **METERS,
            "nvml": lambda _settings, clock, _processes: NvmlMeter(clock=clock, load=self.nvml.load),
            "rapl": lambda _settings, clock, _processes: RaplMeter(clock=clock, root=self.powercap.root),
        }
        settings, processes = settings or EnergySettings(), processes or self._processes
        found = discover(settings, clock=self._clock, processes=processes, meters=table)
        for meter in found:
            meter.close()
        return [meter.kind for meter in found]


@pytest.fixture
def host(nvml: NvmlLibrary, tmp_path: Path, clock: FakeClock, processes: ProcessTable) -> Host:
    return Host(nvml, tmp_path, clock, processes)


def test_auto_takes_gpus_and_packages_together(host: Host) -> None:
    assert host.discover() == ["nvml", "rapl"]


def test_auto_takes_what_there_is(host: Host) -> None:
    host.without_packages()
    assert host.discover() == ["nvml"]


def test_auto_takes_packages_where_there_is_no_gpu(host: Host) -> None:
    host.without_gpu()
    assert host.discover() == ["rapl"]


def test_auto_does_not_count_the_processor_twice_where_the_gpus_counter_has_it(host: Host) -> None:
    host.nvml.gpu(0, name="NVIDIA GH200 480GB")
    assert host.discover() == ["nvml"]


def test_auto_estimates_only_where_nothing_counts(host: Host) -> None:
    host.without_gpu()
    host.without_packages()
    assert host.discover() == ["cpu_estimate"]


def test_auto_takes_none_where_none_can_be_read(host: Host, tmp_path: Path) -> None:
    host.without_gpu()
    host.without_packages()
    assert host.discover(processes=ProcessTable(tmp_path / "absent")) == []


def test_named_meters_are_taken_untried(host: Host) -> None:
    host.without_gpu()
    settings = EnergySettings(meters=[MeterSettings(kind="nvml"), MeterSettings(kind="cpu_estimate")])
    assert host.discover(settings) == ["nvml", "cpu_estimate"]


def test_unknown_meter_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'crystal'.*cpu_estimate, nvml"):
        discover(EnergySettings(meters=[MeterSettings(kind="crystal")]))


def test_meter_that_is_named_twice_is_refused_but_several_nodes_are_not(host: Host) -> None:
    node = MeterSettings(kind="remote", url="http://127.0.0.1:9", name="node-b")
    other = MeterSettings(kind="remote", url="http://127.0.0.1:9", name="node-c")
    assert host.discover(EnergySettings(meters=[node, other])) == ["remote:node-b", "remote:node-c"]
    for twice in ([node, node], [MeterSettings(kind="nvml")] * 2):
        with pytest.raises(ConfigError, match="count twice"):
            host.discover(EnergySettings(meters=twice))


def test_processor_is_not_measured_and_estimated_at_once() -> None:
    with pytest.raises(ConfigError, match="name one"):
        discover(EnergySettings(meters=[MeterSettings(kind="rapl"), MeterSettings(kind="cpu_estimate")]))


@pytest.mark.parametrize(
    ("kind", "facts", "says"),
    [
        ("remote", {}, "needs `url`"),
        ("replay", {}, "needs `path`"),
        ("remote", {"url": "node-b:8082"}, "http://host:port"),
        ("remote", {"url": "http://me:secret@node-b:8082"}, "token_env"),
        ("remote", {"url": "http://node-b:99999"}, "out of range"),
        ("remote", {"url": "http://node-b", "name": "node b"}, "name"),
    ],
)
def test_meter_without_what_its_kind_needs_is_refused(kind: str, facts: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        MeterSettings(kind=kind, **facts)
