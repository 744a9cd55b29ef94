"""Finds the GPUs and decides on which device each engine runs."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from server.config import Config, EngineSettings
from server.models.device import DeviceFacts
from server.units import Bytes

__all__ = ["Gpu", "Place", "facts_of", "find_gpus", "gpu_memory_of", "gpu_shares", "place_engines"]

_GPU_SHARE = 0.9
"""Of a GPU's memory, divided among the engines on it, where their options do not say."""
_BYTES_PER_GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU as NVML lists it."""

    index: int
    compute_capability: tuple[int, int]
    memory_bytes: Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an engine computes."""

    kind: Literal["cpu", "gpu", "remote"]
    gpus: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"gpu:{','.join(map(str, self.gpus))}" if self.kind == "gpu" else self.kind


@contextlib.contextmanager
def _nvml() -> Iterator[Any]:
    """NVML, or None where there is no library, driver or GPU."""
    try:
        import pynvml  # noqa: PLC0415  # only machines with a GPU pay for it

        pynvml.nvmlInit()
    except (ImportError, OSError) as exc:
        del exc
        yield None
        return
    except Exception as exc:
        if type(exc).__module__ != "pynvml":
            raise
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def find_gpus() -> tuple[Gpu, ...]:
    """The NVIDIA GPUs of this machine; none if NVML is absent."""
    with _nvml() as nvml:
        if nvml is None:
            return ()
        return tuple(_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    return Gpu(
        index=index,
        compute_capability=tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle)),
        memory_bytes=Bytes(nvml.nvmlDeviceGetMemoryInfo(handle).total),
    )


def gpu_memory_of(pids: Collection[int], gpus: Sequence[int]) -> Bytes | None:
    """Device memory that these processes hold; None if NVML cannot tell (as in some containers)."""
    with _nvml() as nvml:
        if nvml is None:
            return None
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in gpus]
        held = [
            process.usedGpuMemory
            for handle in handles
            for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)
            if process.pid in pids
        ]
    known = [size for size in held if size is not None]
    return Bytes(sum(known)) if known and len(known) == len(held) else None


def place_engines(config: Config, gpus: Sequence[Gpu]) -> list[Place]:
    """One place an engine, in order; `auto` takes GPUs in turn, as many as its parallel sizes need."""
    turn = 0
    places: list[Place] = []
    for settings in config.engines:
        place = _asked(settings)
        if place is None:
            place = _next(settings, gpus, turn)
            turn += len(place.gpus)
        places.append(place)
    return places


def _asked(settings: EngineSettings) -> Place | None:
    kind, _, which = settings.device.partition(":")
    if settings.launcher == "external":
        return Place(kind="remote")
    if kind == "gpu":
        return Place(kind="gpu", gpus=tuple(sorted({int(index) for index in which.split(",")})))
    return Place(kind="cpu") if kind == "cpu" else None


def _next(settings: EngineSettings, gpus: Sequence[Gpu], turn: int) -> Place:
    if not gpus:
        return Place(kind="cpu")
    options = settings.options
    sizes = (options.tensor_parallel_size, options.pipeline_parallel_size, options.data_parallel_size)
    needed = min(math.prod(size or 1 for size in sizes), len(gpus))
    return Place(kind="gpu", gpus=tuple(sorted(gpus[(turn + step) % len(gpus)].index for step in range(needed))))


def gpu_shares(config: Config, places: Sequence[Place]) -> list[float | None]:
    """An even share of memory for each engine whose GPU others use too and whose options name none."""
    crowd = Counter(index for place in places for index in place.gpus)
    shares: list[float | None] = []
    for settings, place in zip(config.engines, places, strict=True):
        most = max((crowd[index] for index in place.gpus), default=1)
        named = settings.options.gpu_memory_utilization is not None
        shares.append(None if named or most == 1 else math.floor(100 * _GPU_SHARE / most) / 100)
    return shares


def facts_of(settings: EngineSettings, place: Place, gpus: Sequence[Gpu]) -> DeviceFacts:
    """What the rules must know of an engine's device."""
    if place.kind != "gpu":
        return DeviceFacts(kind="cpu")
    used = [gpu for gpu in gpus if gpu.index in place.gpus]
    offload = int((settings.options.cpu_offload_gb or 0) * _BYTES_PER_GIB) * len(used)
    return DeviceFacts(
        kind="cuda",
        compute_capability=min((gpu.compute_capability for gpu in used), default=None),
        memory_bytes=Bytes(sum(gpu.memory_bytes for gpu in used) + offload) if used else None,
    )
