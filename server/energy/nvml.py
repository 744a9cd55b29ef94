"""NVIDIA GPUs, by NVML's total-energy counter (Volta and newer).

The counter is in **millijoules** since the driver was loaded, and restarts when the driver does.
Source: nvmlDeviceGetTotalEnergyConsumption, NVML API reference, "Device Queries".

Older GPUs have no such counter, and adding up samples of their power would be a guess: they are not read. vLLM does not
run on them either.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from server.clock import Clock
from server.energy.counter import JUMPED, EnergyCounter
from server.energy.meter import DeviceReading, Reading
from server.errors import MeterError
from server.units import Joules, Microjoules, Seconds, Watts

__all__ = ["NvmlMeter"]

_MICROJOULES_PER_MILLIJOULE = 1000
_MODULES = ("GH200", "GB200", "GB300")
"""Boards whose counter covers the whole module: GPU, CPU and memory."""
_MOST: Final = Watts(4000.0)
"""More than any GPU or module of one GPU draws; it only tells a gain from a jump."""
_REOPEN_AFTER: Final = Seconds(60.0)
"""While a GPU is missing. Starting NVML again is what finds it, and may take seconds, so not with each reading."""

# Source: nvmlReturn_t, NVML API reference.
_NOT_SUPPORTED: Final = 3
_NO_PERMISSION: Final = 4
_REASONS: Final = {
    _NOT_SUPPORTED: "it has no energy counter, which needs Volta or newer",
    _NO_PERMISSION: "this user may not read it",
    15: "the GPU is lost; see `nvidia-smi`, and `Xid` in the kernel's log",
    16: "the GPU must be reset: nvidia-smi --gpu-reset",
}
_LASTING: Final = frozenset({_NOT_SUPPORTED, _NO_PERMISSION})
"""Starting NVML again would not change these."""


@dataclass(slots=True)
class _Session:
    """From nvmlInit to nvmlShutdown."""

    nvml: Any
    since: Seconds
    handles: dict[str, Any] = field(default_factory=dict)
    scopes: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """GPUs without a handle, and why."""
    lost: bool = False
    """A GPU is missing that may come back."""

    def note(self, error: Any) -> str:
        """Why the GPU cannot be read, in plain words."""
        code = int(getattr(error, "value", 0))
        self.lost = self.lost or code not in _LASTING
        return _REASONS.get(code, str(error))


class NvmlMeter:
    """All GPUs of the host, named by their index. A GPU in MIG mode is read as a whole, and its scope says so."""

    kind: Final = "nvml"

    def __init__(self, *, clock: Clock, load: Callable[[], Any] = lambda: importlib.import_module("pynvml")) -> None:
        self._clock = clock
        self._load = load
        self._session: _Session | None = None
        self._counters: dict[str, EnergyCounter] = {}

    def read(self) -> Reading:
        session = self._open()
        at = self._clock.monotonic()
        devices: list[DeviceReading] = []
        missing = dict(session.missing)
        for device, handle in session.handles.items():
            try:
                joules = self._joules(session.nvml, device, handle, at)
            except session.nvml.NVMLError as exc:
                missing[device] = session.note(exc)
                continue
            if joules is None:
                missing[device] = JUMPED
            else:
                devices.append(DeviceReading(device=device, scope=session.scopes[device], joules=joules))
        if not devices:
            self.close()
            reasons = "; ".join(f"{device}: {reason}" for device, reason in missing.items())
            raise MeterError(f"NVML cannot read any GPU's energy ({reasons}). See what nvidia-smi says.")
        return Reading(at=at, devices=tuple(devices), missing=missing)

    def processes(self) -> dict[str, frozenset[int]]:
        """Processes that compute on each GPU, by the numbers that the driver gives; a GPU that does not say is absent.

        In a container these may be the host's numbers. Raises `MeterError` if NVML does not start.
        """
        session = self._open()
        lists = {}
        for device, handle in session.handles.items():
            try:
                found = session.nvml.nvmlDeviceGetComputeRunningProcesses(handle)
            except session.nvml.NVMLError:
                continue
            lists[device] = frozenset(process.pid for process in found)
        return lists

    def close(self) -> None:
        if self._session is None:
            return
        nvml, self._session = self._session.nvml, None
        try:
            nvml.nvmlShutdown()
        except nvml.NVMLError:
            return  # the driver is gone, and with it all that was held

    def _open(self) -> _Session:
        session = self._session
        if session is not None and session.lost and self._clock.monotonic() - session.since >= _REOPEN_AFTER:
            self.close()
        if self._session is None:
            self._session = self._start()
        return self._session

    def _start(self) -> _Session:
        try:
            nvml = self._load()
        except ImportError as exc:
            raise MeterError("There is no `pynvml`: install `nvidia-ml-py`, or choose the meter cpu_estimate.") from exc
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as exc:
            raise MeterError(f"NVML does not start ({exc}): is there an NVIDIA driver (try nvidia-smi)?") from exc
        session = _Session(nvml, self._clock.monotonic())
        try:
            self._find(session)
        except nvml.NVMLError as exc:
            nvml.nvmlShutdown()
            raise MeterError(f"NVML cannot list the GPUs ({exc}): try nvidia-smi.") from exc
        if not session.handles and not session.missing:
            nvml.nvmlShutdown()
            raise MeterError("NVML finds no GPU on this host; choose the meter cpu_estimate.")
        return session

    def _find(self, session: _Session) -> None:
        nvml = session.nvml
        for index in range(nvml.nvmlDeviceGetCount()):
            device = f"gpu:{index}"
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                session.scopes[device] = _scope(nvml, handle)
            except nvml.NVMLError as exc:
                session.missing[device] = session.note(exc)
            else:
                session.handles[device] = handle
        for device in self._counters.keys() - session.handles.keys() - session.missing.keys():
            session.missing[device] = "NVML does not list it any more"
            session.lost = True

    def _joules(self, nvml: Any, device: str, handle: Any, at: Seconds) -> Joules | None:
        count = Microjoules(int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) * _MICROJOULES_PER_MILLIJOULE)
        counter = self._counters.get(device)
        if counter is None:
            counter = self._counters[device] = EnergyCounter(most=_MOST)
        return counter.advance(count, at)


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
