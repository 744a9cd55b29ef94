"""`make gpu-check` on a simulated GPU behind the real bindings, and where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.gpu_check import GpuCheck
from tests.fakes.nvml_library import NvmlLibrary


class SimulatedGpu:
    """100 W at rest, 130 W with a context, 600 W at work; its counter moves every 100 ms."""

    flop = 1e12

    def __init__(self, nvml: NvmlLibrary) -> None:
        self._nvml = nvml
        self._at_us = 0
        self._used_uj = 0
        self._idle_watts = 100
        self._advance(0.0, 0)

    def now(self) -> float:
        return self._at_us / 1e6

    def sleep(self, seconds: float) -> None:
        self._advance(seconds, self._idle_watts)

    def run(self) -> None:
        self._advance(0.05, 600)

    def make_context(self) -> SimulatedGpu:
        self._idle_watts = 130
        return self

    def _advance(self, seconds: float, watts: int) -> None:
        step_us = round(seconds * 1e6)
        self._used_uj += watts * step_us
        self._at_us += step_us
        late_uj = watts * (self._at_us % 100_000)
        self._nvml.gpu(0, energy_mj=(self._used_uj - late_uj) // 1000, power_mw=watts * 1000)


@pytest.fixture
def gpu(nvml: NvmlLibrary) -> SimulatedGpu:
    return SimulatedGpu(nvml)


@pytest.fixture
def check(nvml: NvmlLibrary, gpu: SimulatedGpu) -> GpuCheck:
    bindings = nvml.load()
    bindings.nvmlInit()
    handle = bindings.nvmlDeviceGetHandleByIndex(0)
    return GpuCheck(nvml=bindings, handle=handle, seconds=3.0, now=gpu.now, sleep=gpu.sleep)


def test_record_says_what_the_counter_is_worth(check: GpuCheck, gpu: SimulatedGpu, nvml: NvmlLibrary) -> None:
    nvml.gpu(0, utilization=100, gpm_2=90, gpm_5=80)
    record = check.record(gpu.make_context)
    nvml.load().nvmlShutdown()
    assert record["gpu"]["name"] == "NVIDIA H200"
    assert record["gpu"]["compute_capability"] == "9.0"
    assert record["gpu"]["power_limit_watts"] is None
    assert record["counter"]["period_s"] == pytest.approx(0.1, abs=0.002)
    assert record["counter"]["smallest_step_joules"] == pytest.approx(10.0, rel=0.05)
    for part, watts in (("idle", 100), ("idle_with_context", 130), ("load", 600)):
        assert record[part]["counter_watts"] == pytest.approx(watts, rel=0.05)
        assert record[part]["integrated_joules"] == pytest.approx(watts * 3, rel=0.05)
        assert record[part]["counter_over_integrated"] == pytest.approx(1.0, abs=0.05)
    assert record["load"]["flop_per_s"] == pytest.approx(2e13)
    assert record["load"]["joules_per_flop"] == pytest.approx(3e-11, rel=0.05)
    assert record["load"]["gpm"] == {"sm_percent": 90.0, "tensor_percent": 80.0, "dram_percent": None}
    assert record["processes"] == {"listed": 0, "own_listed": False, "problem": None}
    assert "joules_per_flop" not in record["idle"]


def test_gpu_without_gpm_says_so(check: GpuCheck, gpu: SimulatedGpu, nvml: NvmlLibrary) -> None:
    nvml.gpu(0, gpm=None, processes_error=4)
    record = check.record(gpu.make_context)
    nvml.load().nvmlShutdown()
    assert record["load"]["gpm_supported"] is False
    assert "gpm" not in record["load"]
    assert record["processes"]["listed"] is None


def test_host_without_a_gpu_gets_a_sentence_and_status_2(root: Path, tmp_path: Path) -> None:
    # A folder of its own before the others: a host may have a real driver.
    (tmp_path / "libnvidia-ml.so.1").write_text("no library")
    done = subprocess.run(
        [sys.executable, root / "tests" / "benchmarks" / "gpu_check.py"],
        env={"LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert not done.stdout
    assert done.stderr.startswith("gpu-check: ")
    assert len(done.stderr.splitlines()) == 1
