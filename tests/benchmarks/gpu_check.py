"""Measures what a GPU's energy counter is worth; prints one JSON record.

A program of its own: it needs Python, `nvidia-ml-py` and torch, and nothing of Wattgate. The record's form is in
tests/recordings/README.md.

    python tests/benchmarks/gpu_check.py [--gpu 0] [--seconds 10] [--out FILE]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

__all__ = ["GpuCheck", "Load", "main"]

_EXIT_NO_GPU: Final = 2
_JOULES_PER_MILLIJOULE: Final = 1e-3
_WATTS_PER_MILLIWATT: Final = 1e-3
_SAMPLE_EVERY_S: Final = 0.02
_SETTLE_S: Final = 2.0
"""After a change of load: power is an average over a second on newer chips."""
_POLL_EVERY_S: Final = 0.001
"""To find the counter's period, which is about 0.1 s."""
_SIZE: Final = 8192
"""Of the square matrices: 2 · 8192³ = 1.1e12 FLOP, about 1.5 ms on an H200; 134 MB each, far beyond the caches."""
_GPM_METRICS: Final = {"sm_percent": 2, "tensor_percent": 5, "dram_percent": 10}
"""Source: nvmlGpmMetricId_t: SM_UTIL, ANY_TENSOR_UTIL, DRAM_BW_UTIL."""


class Load(Protocol):
    """Work of known size."""

    @property
    def flop(self) -> float:
        """Of one `run`."""

    def run(self) -> None:
        """Do it, and return when the GPU has done it."""


class Matmul:
    """Products of two square bf16 matrices."""

    repeats: Final = 16
    flop: Final = 16 * 2.0 * _SIZE**3

    def __init__(self, torch: Any, gpu: int) -> None:
        self._torch = torch
        self._device = torch.device("cuda", gpu)
        self._left = torch.randn(_SIZE, _SIZE, device=self._device, dtype=torch.bfloat16)
        self._right = torch.randn(_SIZE, _SIZE, device=self._device, dtype=torch.bfloat16)
        self._product = torch.empty_like(self._left)

    def run(self) -> None:
        for _ in range(self.repeats):
            self._torch.matmul(self._left, self._right, out=self._product)
        self._torch.cuda.synchronize(self._device)


@dataclass(slots=True, kw_only=True)
class GpuCheck:
    """The measurements, one after the other, on one GPU."""

    nvml: Any
    handle: Any
    seconds: float
    """Of each of them."""
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def record(self, make_load: Callable[[], Load]) -> dict[str, Any]:
        """Everything; the first part before the load has touched the GPU."""
        found = {"gpu": self._gpu(), "counter": self._counter(), "idle": self._sampled(self._rest)}
        load = make_load()
        load.run()
        self.sleep(_SETTLE_S)
        found["idle_with_context"] = self._sampled(self._rest)
        self._warm_up(load)
        found["load"] = self._under(load)
        found["processes"] = self._processes()
        return found

    def _gpu(self) -> dict[str, Any]:
        nvml, handle = self.nvml, self.handle
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        return {
            "name": _text(nvml.nvmlDeviceGetName(handle)),
            "driver": _text(nvml.nvmlSystemGetDriverVersion()),
            "compute_capability": f"{major}.{minor}",
            "memory_bytes": nvml.nvmlDeviceGetMemoryInfo(handle).total,
            "power_limit_watts": self._asked("nvmlDeviceGetPowerManagementLimit", _WATTS_PER_MILLIWATT),
            "mig": self._mig(),
        }

    def _counter(self) -> dict[str, Any]:
        """How often the counter moves, by how much it does at rest, and what it costs to ask."""
        began = last_at = self.now()
        last, reads, gaps, steps = self._joules(), 1, list[float](), list[float]()
        while (at := self.now()) - began < self.seconds:
            joules, reads = self._joules(), reads + 1
            if joules != last:
                gaps.append(at - last_at)
                steps.append(joules - last)
                last, last_at = joules, at
            self.sleep(_POLL_EVERY_S)
        asked_at = self.now()
        for _ in range(100):
            self._joules()
        gaps = gaps[1:]  # the first began in the middle of a period
        return {
            "moves": len(steps),
            "period_s": statistics.median(gaps) if gaps else None,
            "longest_period_s": max(gaps, default=None),
            "smallest_step_joules": min(steps, default=None),
            "reads": reads,
            "read_s": (self.now() - asked_at) / 100,
        }

    def _sampled(self, work: Callable[[], float]) -> dict[str, Any]:
        """Energy by the counter, and by samples of the power, while `work` is done again and again."""
        began = at = self.now()
        joules, watts = self._joules(), self._watts()
        integral, samples, flop, busy_s = 0.0, [watts], 0.0, 0.0
        while (before := at) - began < self.seconds:
            flop += work()
            busy_s += self.now() - before
            at, previous, watts = self.now(), watts, self._watts()
            integral += (at - before) * (previous + watts) / 2
            samples.append(watts)
        used, lasted = self._joules() - joules, at - began
        return {
            "seconds": lasted,
            "counter_joules": used,
            "counter_watts": used / lasted,
            "integrated_joules": integral,
            "counter_over_integrated": used / integral if integral else None,
            "power_samples": len(samples),
            "least_watts": min(samples),
            "most_watts": max(samples),
            **({"flop": flop, "flop_per_s": flop / busy_s, "joules_per_flop": used / flop} if flop else {}),
        }

    def _warm_up(self, load: Load) -> None:
        until = self.now() + _SETTLE_S
        while self.now() < until:
            load.run()

    def _under(self, load: Load) -> dict[str, Any]:
        def run() -> float:
            load.run()
            return load.flop

        supported = self._gpm_supported()
        first = self.nvml.nvmlGpmSampleAlloc() if supported else None
        second = self.nvml.nvmlGpmSampleAlloc() if supported else None
        if supported:
            self.nvml.nvmlGpmSampleGet(self.handle, first)
        found = self._sampled(run)
        found["utilization_percent"] = self.nvml.nvmlDeviceGetUtilizationRates(self.handle).gpu
        found["gpm_supported"] = supported
        if supported:
            self.nvml.nvmlGpmSampleGet(self.handle, second)
            found["gpm"] = self._gpm(first, second)
        return found

    def _gpm_supported(self) -> bool:
        try:
            return bool(self.nvml.nvmlGpmQueryDeviceSupport(self.handle).isSupportedDevice)
        except self.nvml.NVMLError:
            return False

    def _gpm(self, first: Any, second: Any) -> dict[str, float | None]:
        wanted = self.nvml.c_nvmlGpmMetricsGet_t()
        wanted.version = self.nvml.NVML_GPM_METRICS_GET_VERSION
        wanted.numMetrics = len(_GPM_METRICS)
        wanted.sample1, wanted.sample2 = first, second
        for place, metric in enumerate(_GPM_METRICS.values()):
            wanted.metrics[place].metricId = metric
        try:
            got = self.nvml.nvmlGpmMetricsGet(wanted)
        finally:
            self.nvml.nvmlGpmSampleFree(first)
            self.nvml.nvmlGpmSampleFree(second)
        values = (got.metrics[place] for place in range(len(_GPM_METRICS)))
        return {
            name: value.value if value.nvmlReturn == 0 else None
            for name, value in zip(_GPM_METRICS, values, strict=True)
        }

    def _processes(self) -> dict[str, Any]:
        """Does the driver count processes as this one does? In most containers it does not."""
        try:
            pids = [process.pid for process in self.nvml.nvmlDeviceGetComputeRunningProcesses(self.handle)]
        except self.nvml.NVMLError as exc:
            return {"listed": None, "own_listed": None, "problem": str(exc)}
        return {"listed": len(pids), "own_listed": os.getpid() in pids, "problem": None}

    def _rest(self) -> float:
        self.sleep(_SAMPLE_EVERY_S)
        return 0.0

    def _joules(self) -> float:
        return float(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)) * _JOULES_PER_MILLIJOULE

    def _watts(self) -> float:
        return float(self.nvml.nvmlDeviceGetPowerUsage(self.handle)) * _WATTS_PER_MILLIWATT

    def _mig(self) -> bool:
        try:
            return bool(self.nvml.nvmlDeviceGetMigMode(self.handle)[0])
        except self.nvml.NVMLError:
            return False

    def _asked(self, call: str, unit: float) -> float | None:
        try:
            return float(getattr(self.nvml, call)(self.handle)) * unit
        except self.nvml.NVMLError:
            return None


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 2 where there is nothing to measure."""
    parser = argparse.ArgumentParser(description="Measures what a GPU's energy counter is worth.")
    parser.add_argument("--gpu", type=int, default=0, help="its index, as nvidia-smi lists it; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement; default: %(default)s")
    parser.add_argument("--out", type=Path, help="where the record is written besides: tests/recordings/NAME.json")
    options = parser.parse_args(arguments)
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # noqa: TID251  # as NVML counts
    try:
        found = _measure(options.gpu, options.seconds)
    except RuntimeError as exc:  # torch's are, too
        print(f"gpu-check: {exc}", file=sys.stderr)
        return _EXIT_NO_GPU
    record = {"record": "gpu_check", "version": 1, "date": datetime.now(UTC).isoformat(timespec="seconds"), **found}
    text = json.dumps(record, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 0


def _measure(gpu: int, seconds: float) -> dict[str, Any]:
    """Raises `RuntimeError` with what is missing, and what to do."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError as exc:
        raise RuntimeError(f"{exc}. On a machine with an NVIDIA GPU, install `nvidia-ml-py` (and torch).") from exc
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByIndex(gpu)
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except nvml.NVMLError as exc:
        raise RuntimeError(f"GPU {gpu} has no energy counter that can be read here ({exc}): try nvidia-smi.") from exc
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError as exc:
        raise RuntimeError(f"{exc}. Install torch for CUDA, or name a Python that has it.") from exc
    if not torch.cuda.is_available():
        raise RuntimeError("this torch sees no GPU: install one that is built for CUDA.")
    try:
        check = GpuCheck(nvml=nvml, handle=handle, seconds=seconds)
        return {**check.record(lambda: Matmul(torch, gpu)), "torch": str(torch.__version__)}
    except nvml.NVMLError as exc:
        raise RuntimeError(f"the GPU stopped answering in the middle ({exc}): try nvidia-smi.") from exc
    finally:
        nvml.nvmlShutdown()


if __name__ == "__main__":
    sys.exit(main())
