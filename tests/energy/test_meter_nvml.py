"""NVIDIA's library by its real bindings, on hardware that fails in every way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from server.control.devices import find_gpus, gpu_memory_of
from server.energy import Reading
from server.energy.nvml import NvmlMeter
from server.errors import MeterError
from tests.fakes.clock import FakeClock
from tests.fakes.nvml_library import NvmlLibrary

NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED, GPU_IS_LOST, RESET_REQUIRED = 3, 4, 9, 15, 16


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def meter(nvml: NvmlLibrary, clock: FakeClock) -> Iterator[NvmlMeter]:
    before = nvml.started
    meter = NvmlMeter(clock=clock, load=nvml.load)
    yield meter
    meter.close()
    assert nvml.started == before


def joules(reading: Reading) -> dict[str, float]:
    return {device.device: device.joules for device in reading.devices}


def test_millijoules_become_joules(meter: NvmlMeter, nvml: NvmlLibrary) -> None:
    nvml.gpu(0, energy_mj=1_234_567)
    (device,) = meter.read().devices
    assert (device.device, device.scope) == ("gpu:0", "gpu")
    assert device.joules == 1234.567
    assert device.baseline_joules is None
    assert not device.by_cpu_time


def test_counter_beyond_32_bits_is_read_whole(meter: NvmlMeter, nvml: NvmlLibrary) -> None:
    nvml.gpu(0, energy_mj=2**33)
    assert joules(meter.read()) == {"gpu:0": 8589934.592}


def test_counter_that_restarts_with_the_driver_goes_on_rising(meter: NvmlMeter, nvml: NvmlLibrary) -> None:
    nvml.gpu(0, energy_mj=7_000)
    meter.read()
    nvml.gpu(0, energy_mj=1_000)
    assert joules(meter.read()) == {"gpu:0": 8.0}
    nvml.gpu(0, energy_mj=1_500)
    assert joules(meter.read()) == {"gpu:0": 8.5}


def test_counter_that_jumps_is_missing_once_rather_than_at_rest(meter: NvmlMeter, nvml: NvmlLibrary) -> None:
    nvml.add_gpu()
    meter.read()
    nvml.gpu(1, energy_mj=900_000_000)
    reading = meter.read()
    assert joules(reading) == {"gpu:0": 5.0}
    assert "jumped" in reading.missing["gpu:1"]
    nvml.gpu(1, energy_mj=900_001_000)
    assert joules(meter.read()) == {"gpu:0": 5.0, "gpu:1": 6.0}


def test_driver_that_is_loaded_again_is_opened_again(meter: NvmlMeter, nvml: NvmlLibrary) -> None:
    meter.read()
    nvml.reload_driver()
    nvml.gpu(0, energy_mj=500)
    with pytest.raises(MeterError, match="gpu:0: the GPU is lost"):
        meter.read()
    assert joules(meter.read()) == {"gpu:0": 5.5}


def test_driver_that_is_away_is_a_meter_error_until_it_is_back(meter: NvmlMeter, nvml: NvmlLibrary) -> None:
    meter.read()
    nvml.gpu(0, energy_mj_error=DRIVER_NOT_LOADED)
    nvml.host(init_error=DRIVER_NOT_LOADED)
    with pytest.raises(MeterError, match="Driver Not Loaded"):
        meter.read()
    for _ in range(2):
        with pytest.raises(MeterError, match=r"does not start.*nvidia-smi"):
            meter.read()
    nvml.gpu(0, energy_mj_error=None, energy_mj=200)
    nvml.host(init_error=None)
    assert joules(meter.read()) == {"gpu:0": 5.2}


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (GPU_IS_LOST, "Xid"),
        (NO_PERMISSION, "may not read it"),
        (NOT_SUPPORTED, "Volta or newer"),
        (RESET_REQUIRED, "--gpu-reset"),
        (999, "Unknown Error"),
    ],
)
def test_gpu_that_cannot_be_read_is_missing_with_the_reason_and_the_others_go_on(
    meter: NvmlMeter, nvml: NvmlLibrary, error: int, says: str
) -> None:
    nvml.add_gpu(energy_mj=9_000)
    meter.read()
    nvml.gpu(0, energy_mj_error=error)
    nvml.gpu(1, energy_mj=9_500)
    reading = meter.read()
    assert joules(reading) == {"gpu:1": 9.5}
    assert says in reading.missing["gpu:0"]
    nvml.gpu(1, energy_mj_error=error)
    with pytest.raises(MeterError, match=f"gpu:0: .*{says}.*gpu:1: .*{says}"):
        meter.read()


def test_gpu_without_a_counter_has_no_reading_rather_than_a_guess(meter: NvmlMeter, nvml: NvmlLibrary) -> None:
    nvml.gpu(0, name="Tesla P100", energy_mj=None)
    with pytest.raises(MeterError, match="Volta or newer"):
        meter.read()
    nvml.add_gpu()
    reading = meter.read()
    assert joules(reading).keys() == {"gpu:1"}
    assert reading.missing.keys() == {"gpu:0"}


@pytest.mark.parametrize("fact", ["handle", "name"])
def test_gpu_that_gives_no_handle_or_name_is_missing_and_the_others_are_read(
    meter: NvmlMeter, nvml: NvmlLibrary, fact: str
) -> None:
    nvml.add_gpu()
    nvml.gpu(0, **{f"{fact}_error": NO_PERMISSION})
    reading = meter.read()
    assert joules(reading).keys() == {"gpu:1"}
    assert reading.missing == {"gpu:0": "this user may not read it"}


def test_lost_gpu_is_looked_for_by_starting_nvml_again_but_not_with_each_reading(
    meter: NvmlMeter, nvml: NvmlLibrary, clock: FakeClock
) -> None:
    nvml.add_gpu()
    nvml.gpu(0, handle_error=GPU_IS_LOST)
    assert meter.read().missing.keys() == {"gpu:0"}
    nvml.gpu(0, handle_error=None)
    clock.advance(30.0)
    assert meter.read().missing.keys() == {"gpu:0"}
    clock.advance(30.0)
    assert joules(meter.read()).keys() == {"gpu:0", "gpu:1"}


def test_gpu_that_is_listed_no_more_is_missing(meter: NvmlMeter, nvml: NvmlLibrary, clock: FakeClock) -> None:
    nvml.add_gpu()
    meter.read()
    nvml.host(gpus=1)
    nvml.reload_driver()
    with pytest.raises(MeterError):
        meter.read()
    reading = meter.read()
    assert joules(reading) == {"gpu:0": 5.0}
    assert "list" in reading.missing["gpu:1"]


@pytest.mark.parametrize(
    ("name", "mig", "scope"),
    [
        ("NVIDIA H200", 0, "gpu"),
        ("NVIDIA H200", 1, "whole_gpu"),
        ("NVIDIA GH200 480GB", 0, "module"),
        ("NVIDIA GB200", 0, "module"),
        ("Tesla V100-SXM2-32GB", None, "gpu"),
    ],
)
def test_scope_says_what_the_counter_covers(
    meter: NvmlMeter, nvml: NvmlLibrary, name: str, mig: int | None, scope: str
) -> None:
    nvml.gpu(0, name=name, mig=mig)
    assert meter.read().devices[0].scope == scope


def test_gpu_in_mig_mode_is_one_device_however_many_instances_it_has(meter: NvmlMeter, nvml: NvmlLibrary) -> None:
    nvml.gpu(0, mig=1, processes="41:10 42:20 43:30")
    assert joules(meter.read()) == {"gpu:0": 5.0}
    assert meter.processes() == {"gpu:0": frozenset({41, 42, 43})}


def test_processes_are_listed_for_each_gpu_that_says(meter: NvmlMeter, nvml: NvmlLibrary) -> None:
    nvml.add_gpu(processes="41:1000 42:-")
    assert meter.processes() == {"gpu:0": frozenset(), "gpu:1": frozenset({41, 42})}
    nvml.gpu(0, processes_error=NO_PERMISSION)
    assert meter.processes() == {"gpu:1": frozenset({41, 42})}


def test_reading_is_one_call_a_gpu(meter: NvmlMeter, nvml: NvmlLibrary) -> None:
    for _ in range(7):
        nvml.add_gpu()
    meter.read()
    before = nvml.calls
    meter.read()
    assert nvml.calls - before == 8


def test_host_without_a_gpu_or_without_the_bindings_says_so(nvml: NvmlLibrary, clock: FakeClock) -> None:
    nvml.host(gpus=0)
    with pytest.raises(MeterError, match="no GPU"):
        NvmlMeter(clock=clock, load=nvml.load).read()
    nvml.host(gpus_error=999)
    with pytest.raises(MeterError, match="cannot list the GPUs"):
        NvmlMeter(clock=clock, load=nvml.load).read()

    def absent() -> None:
        raise ImportError("No module named 'pynvml'")

    with pytest.raises(MeterError, match="nvidia-ml-py"):
        NvmlMeter(clock=clock, load=absent).read()


def test_gpus_are_found_with_their_capability_and_memory_through_the_same_bindings(nvml: NvmlLibrary) -> None:
    nvml.add_gpu(capability="7.0", memory_bytes=None)
    nvml.add_gpu(handle_error=GPU_IS_LOST)
    first, second = find_gpus({}, nvml=nvml.load())
    assert (first.compute_capability, first.memory_bytes) == ((9, 0), 150_000_000_000)
    assert (second.index, second.compute_capability, second.memory_bytes) == (1, (7, 0), None)


@pytest.mark.parametrize(("listed", "held"), [("41:1000 42:500 77:9", 1500), ("41:1000 42:-", None), ("77:9", None)])
def test_memory_of_processes_is_read_through_the_same_bindings(
    nvml: NvmlLibrary, listed: str, held: int | None
) -> None:
    nvml.gpu(0, processes=listed)
    assert gpu_memory_of({41, 42}, [0], nvml=nvml.load()) == held
