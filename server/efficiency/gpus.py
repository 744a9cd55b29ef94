"""What engines on NVIDIA GPUs use: utilization and memory, by NVML.

`utilization.gpu` is the percentage of NVML's last sample period (1/6 to 1 s) in which any kernel ran.
Source: nvmlUtilization_t, NVML API reference.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from server.efficiency.use import Use, gpus_of
from server.fleet import Replica
from server.units import Bytes, Seconds

__all__ = ["GpuUse"]

_AGAIN_AFTER: Final = Seconds(60.0)
"""NVML that failed is left alone for so long: starting it may take a second."""
_LONGEST_STEP: Final = Seconds(10.0)
"""A sample does not stand for more time than this before it."""


class _Gpu(NamedTuple):
    held: Bytes
    total: Bytes
    utilization: float | None
    """0 … 1; MIG and some boards do not tell."""


class GpuUse:
    """Local engines on GPUs. Utilization is the whole GPU's, whoever else uses it."""

    def __init__(self, load: Callable[[], Any] = lambda: importlib.import_module("pynvml")) -> None:
        self._load = load
        self._nvml: Any = None
        self._handles: dict[int, Any] = {}
        self._names: dict[int, str] = {}
        self._failed_at: Seconds | None = None
        self._looked_at: Seconds | None = None

    def look(self, replicas: Sequence[Replica], at: Seconds) -> Mapping[str, Use]:
        last, self._looked_at = self._looked_at, at
        step = None if last is None or at - last > _LONGEST_STEP else at - last
        crowd = Counter(index for replica in replicas for index in gpus_of(replica))
        gpus = {index: self._read(index, at) for index in crowd}
        return {
            replica.name: _use(
                replica,
                [gpus[index] for index in gpus_of(replica)],
                step,
                alone=all(crowd[index] == 1 for index in gpus_of(replica)),
            )
            for replica in replicas
        }

    def name(self, index: int) -> str | None:
        """What NVML calls the GPU; None before it was looked at."""
        return self._names.get(index)

    def close(self) -> None:
        if self._nvml is None:
            return
        nvml, self._nvml = self._nvml, None
        self._handles.clear()
        try:
            nvml.nvmlShutdown()
        except nvml.NVMLError:
            return  # the driver is gone, and with it all that was held

    def _read(self, index: int, at: Seconds) -> _Gpu | None:
        if not self._open(at):
            return None
        nvml = self._nvml
        try:
            handle = self._handles.get(index)
            if handle is None:
                handle = self._handles[index] = nvml.nvmlDeviceGetHandleByIndex(index)
                name = nvml.nvmlDeviceGetName(handle)
                self._names[index] = name.decode() if isinstance(name, bytes) else str(name)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        except nvml.NVMLError:
            self._failed_at = at
            self.close()
            return None
        try:
            utilization = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        except nvml.NVMLError:
            utilization = None
        return _Gpu(Bytes(memory.used), Bytes(memory.total), utilization)

    def _open(self, at: Seconds) -> bool:
        if self._nvml is not None:
            return True
        if self._failed_at is not None and at - self._failed_at < _AGAIN_AFTER:
            return False
        try:
            nvml = self._load()
            nvml.nvmlInit()
        except Exception:  # noqa: BLE001  # no module, no library, no driver: each is an error of its own
            self._failed_at = at
            return False
        self._nvml, self._failed_at = nvml, None
        return True


def _use(replica: Replica, gpus: Sequence[_Gpu | None], step: float | None, *, alone: bool) -> Use:
    known = [gpu for gpu in gpus if gpu is not None]
    if len(known) < len(gpus):
        return Use(memory_held_bytes=replica.memory_bytes)
    held = replica.memory_bytes
    if held is None and alone:  # in a container NVML names no processes: then it is all that the GPUs hold
        held = Bytes(sum(gpu.held for gpu in known))
    rates = [gpu.utilization for gpu in known if gpu.utilization is not None]
    step = step if len(rates) == len(known) else None
    return Use(
        memory_held_bytes=held,
        memory_allowed_bytes=Bytes(sum(gpu.total for gpu in known)),
        compute_s=len(rates) * step if step is not None else None,
        compute_busy_s=sum(rates) * step if step is not None else None,
    )
