"""Every kind of meter keeps the contract; which one is taken where."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.config import EnergySettings, MeterSettings
from server.energy import METERS, EnergyMeter, ProcessTable, discover
from server.energy.cpu_estimate import CpuEstimateMeter
from server.energy.nvml import NvmlMeter
from server.errors import ConfigError, MeterError
from tests.energy.test_processes import Proc
from tests.fakes.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


@pytest.fixture
def processes(proc: Proc) -> ProcessTable:
    return ProcessTable(proc.root, ticks_per_second=100)


@pytest.mark.parametrize("kind", METERS)
def test_meter_reads_what_never_falls_or_raises_a_meter_error(kind: str, clock: FakeClock) -> None:
    meter = METERS[kind](MeterSettings(kind=kind), clock, ProcessTable())
    assert meter.kind == kind
    try:
        first = meter.read()
    except MeterError as exc:
        assert str(exc)  # noqa: PT017  # this host may lack the device, and then says so
        return
    clock.advance(1.0)
    second = meter.read()
    meter.close()
    assert second.at - first.at == 1.0
    assert [d.device for d in first.devices] == [d.device for d in second.devices]
    assert all(b.joules >= a.joules for a, b in zip(first.devices, second.devices, strict=True))
    assert all(device.scope for device in first.devices)


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
    assert first.joules == 0
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


class NVMLError(Exception):
    """As pynvml's."""


class FakeNvml(types.SimpleNamespace):
    """As much of pynvml as the meter calls: one GPU whose counter the test sets, in mJ."""

    NVMLError = NVMLError
    NVML_DEVICE_MIG_ENABLE = 1

    def __init__(self) -> None:
        super().__init__(counter=5_000, gpus=1, name="NVIDIA H200", mig=0, gone=False, started=0)

    def nvmlInit(self) -> None:  # noqa: N802
        if self.gone:
            raise NVMLError("Driver Not Loaded")
        self.started += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.started -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return int(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, _handle: int) -> str:  # noqa: N802
        return str(self.name)

    def nvmlDeviceGetMigMode(self, _handle: int) -> tuple[int, int]:  # noqa: N802
        if self.mig is None:
            raise NVMLError("Not Supported")
        return self.mig, self.mig

    def nvmlDeviceGetTotalEnergyConsumption(self, _handle: int) -> int:  # noqa: N802
        if self.gone:
            raise NVMLError("GPU is lost")
        return int(self.counter)

    def nvmlDeviceGetComputeRunningProcesses(self, _handle: int) -> list[Any]:  # noqa: N802
        return [types.SimpleNamespace(pid=42)]


@pytest.fixture
def nvml() -> FakeNvml:
    return FakeNvml()


@pytest.fixture
def gpu(nvml: FakeNvml, clock: FakeClock) -> NvmlMeter:
    return NvmlMeter(clock=clock, load=lambda: nvml)


def test_nvml_millijoules_become_joules(gpu: NvmlMeter, nvml: FakeNvml) -> None:
    nvml.counter = 1_234_567
    (device,) = gpu.read().devices
    assert (device.device, device.scope) == ("gpu:0", "gpu")
    assert device.joules == pytest.approx(1234.567)
    assert device.baseline_joules is None
    assert not device.by_cpu_time


def test_nvml_counter_that_restarts_with_the_driver_goes_on_rising(gpu: NvmlMeter, nvml: FakeNvml) -> None:
    gpu.read()
    nvml.counter = 7_000
    assert gpu.read().devices[0].joules == pytest.approx(7.0)
    nvml.counter = 1_000
    assert gpu.read().devices[0].joules == pytest.approx(8.0)
    nvml.counter = 1_500
    assert gpu.read().devices[0].joules == pytest.approx(8.5)


def test_nvml_that_loses_the_gpu_raises_and_recovers_with_its_total(gpu: NvmlMeter, nvml: FakeNvml) -> None:
    before = gpu.read().devices[0].joules
    nvml.gone = True
    for _ in range(2):
        with pytest.raises(MeterError, match="nvidia-smi"):
            gpu.read()
    assert nvml.started == 0
    nvml.gone, nvml.counter = False, 500
    assert gpu.read().devices[0].joules == pytest.approx(before + 0.5)


@pytest.mark.parametrize(
    ("name", "mig", "scope"),
    [
        ("NVIDIA H200", 0, "gpu"),
        ("NVIDIA H200", 1, "whole_gpu"),
        ("NVIDIA GH200 480GB", 0, "module"),
        ("V100", None, "gpu"),
    ],
)
def test_nvml_scope_says_what_the_counter_covers(
    gpu: NvmlMeter, nvml: FakeNvml, name: str, mig: int | None, scope: str
) -> None:
    nvml.name, nvml.mig = name, mig
    assert gpu.read().devices[0].scope == scope


def test_nvml_lists_the_processes_of_each_gpu(gpu: NvmlMeter) -> None:
    assert gpu.processes() == {"gpu:0": frozenset({42})}


def test_nvml_without_a_gpu_or_without_its_library_is_a_meter_error(clock: FakeClock, nvml: FakeNvml) -> None:
    nvml.gpus = 0
    with pytest.raises(MeterError, match="no GPU"):
        NvmlMeter(clock=clock, load=lambda: nvml).read()

    def absent() -> Any:
        raise ImportError("No module named 'pynvml'")

    with pytest.raises(MeterError, match="nvidia-ml-py"):
        NvmlMeter(clock=clock, load=absent).read()


def table_of(load: Callable[[], Any]) -> dict[str, Any]:
    return {**METERS, "nvml": lambda _settings, clock, _processes: NvmlMeter(clock=clock, load=load)}


def kinds(meters: list[EnergyMeter]) -> list[str]:
    return [meter.kind for meter in meters]


def test_auto_takes_nvml_where_there_is_a_gpu(clock: FakeClock, processes: ProcessTable, nvml: FakeNvml) -> None:
    found = discover(EnergySettings(), clock=clock, processes=processes, meters=table_of(lambda: nvml))
    assert kinds(found) == ["nvml"]


def test_auto_takes_the_estimate_where_nvml_is_not(clock: FakeClock, processes: ProcessTable, nvml: FakeNvml) -> None:
    nvml.gone = True
    found = discover(EnergySettings(), clock=clock, processes=processes, meters=table_of(lambda: nvml))
    assert kinds(found) == ["cpu_estimate"]


def test_auto_takes_none_where_none_can_be_read(clock: FakeClock, tmp_path: Path, nvml: FakeNvml) -> None:
    nvml.gone = True
    nothing = ProcessTable(tmp_path / "absent")
    assert discover(EnergySettings(), clock=clock, processes=nothing, meters=table_of(lambda: nvml)) == []


def test_named_meters_are_taken_untried(clock: FakeClock, processes: ProcessTable, nvml: FakeNvml) -> None:
    nvml.gone = True
    settings = EnergySettings(meters=[MeterSettings(kind="nvml"), MeterSettings(kind="cpu_estimate")])
    found = discover(settings, clock=clock, processes=processes, meters=table_of(lambda: nvml))
    assert kinds(found) == ["nvml", "cpu_estimate"]


def test_unknown_meter_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'crystal'.*cpu_estimate, nvml"):
        discover(EnergySettings(meters=[MeterSettings(kind="crystal")]))
