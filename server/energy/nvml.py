"""NVIDIA GPUs, by NVML's total-energy counter (Volta and newer).

The counter is in **millijoules** since the driver was loaded, and restarts when the driver does.
Source: nvmlDeviceGetTotalEnergyConsumption, NVML API reference, "Device Queries".
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final

from server.clock import Clock
from server.energy.meter import DeviceReading, Reading
from server.errors import MeterError
from server.units import Joules

__all__ = ["NvmlMeter"]

_JOULES_PER_MILLIJOULE = 1e-3
_MODULES = ("GH200", "GB200", "GB300")
"""Boards whose counter covers the whole module: GPU, CPU and memory."""


class NvmlMeter:
    """All GPUs of the host, named by their index. A GPU in MIG mode is read as a whole, and its scope says so."""

    kind: Final = "nvml"

    def __init__(self, *, clock: Clock, load: Callable[[], Any] = lambda: importlib.import_module("pynvml")) -> None:
        self._clock = clock
        self._load = load
        self._nvml: Any = None
        self._handles: list[Any] = []
        self._scopes: list[str] = []
        self._last_mj: dict[int, int] = {}
        self._before_reset_mj: dict[int, int] = {}

    def read(self) -> Reading:
        nvml = self._open()
        try:
            devices = tuple(
                DeviceReading(device=f"gpu:{index}", scope=scope, joules=self._total(nvml, index, handle))
                for index, (handle, scope) in enumerate(zip(self._handles, self._scopes, strict=True))
            )
        except nvml.NVMLError as exc:
            self.close()
            raise MeterError(
                f"NVML cannot read a GPU's energy ({exc}): the counter needs Volta or newer, and a driver that answers "
                f"(try nvidia-smi)."
            ) from exc
        return Reading(at=self._clock.monotonic(), devices=devices)

    def processes(self) -> dict[str, frozenset[int]]:
        """Process ids that hold memory on each device, as this host's namespace sees them. Raises `MeterError`."""
        nvml = self._open()
        try:
            return {
                f"gpu:{index}": frozenset(p.pid for p in nvml.nvmlDeviceGetComputeRunningProcesses(handle))
                for index, handle in enumerate(self._handles)
            }
        except nvml.NVMLError as exc:
            raise MeterError(f"NVML cannot list a GPU's processes ({exc}).") from exc

    def close(self) -> None:
        if self._nvml is None:
            return
        nvml, self._nvml = self._nvml, None
        try:
            nvml.nvmlShutdown()
        except nvml.NVMLError:
            return  # the driver is gone, and with it all that was held

    def _open(self) -> Any:
        if self._nvml is not None:
            return self._nvml
        try:
            nvml = self._load()
        except ImportError as exc:
            raise MeterError("There is no `pynvml`: install `nvidia-ml-py`, or choose the meter cpu_estimate.") from exc
        try:
            nvml.nvmlInit()
            self._handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
            self._scopes = [_scope(nvml, handle) for handle in self._handles]
        except nvml.NVMLError as exc:
            raise MeterError(f"NVML does not start ({exc}): is there an NVIDIA driver (try nvidia-smi)?") from exc
        if not self._handles:
            nvml.nvmlShutdown()
            raise MeterError("NVML finds no GPU on this host; choose the meter cpu_estimate.")
        self._nvml = nvml
        return nvml

    def _total(self, nvml: Any, index: int, handle: Any) -> Joules:
        now_mj = int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        last_mj = self._last_mj.get(index, 0)
        if now_mj < last_mj:  # the driver was loaded again
            self._before_reset_mj[index] = self._before_reset_mj.get(index, 0) + last_mj
        self._last_mj[index] = now_mj
        return Joules((self._before_reset_mj.get(index, 0) + now_mj) * _JOULES_PER_MILLIJOULE)


def _scope(nvml: Any, handle: Any) -> str:
    name = nvml.nvmlDeviceGetName(handle)
    name = name.decode() if isinstance(name, bytes) else str(name)
    if any(module in name for module in _MODULES):
        return "module"
    try:
        current, _pending = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError:
        return "gpu"  # a GPU that knows no MIG
    return "whole_gpu" if current == nvml.NVML_DEVICE_MIG_ENABLE else "gpu"
