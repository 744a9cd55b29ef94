"""Finds the GPUs and decides on which device each engine runs."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from server.config import Config, EngineSettings
from server.control.doors import is_loopback
from server.models.device import DeviceFacts
from server.units import Bytes

__all__ = [
    "CPUINFO",
    "CpuAbilities",
    "Gpu",
    "Place",
    "cpu_abilities",
    "facts_of",
    "find_gpus",
    "gpu_memory_of",
    "gpu_shares",
    "place_engines",
]

CPUINFO = Path("/proc/cpuinfo")

_GPU_SHARE = 0.9
"""Of a GPU's memory, divided among the engines on it, where their options do not say."""
_BYTES_PER_GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU as NVML lists it."""

    index: int
    compute_capability: tuple[int, int]
    memory_bytes: Bytes | None
    """None: it does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an engine computes."""

    kind: Literal["cpu", "gpu", "remote"]
    gpus: tuple[int, ...] = ()
    metered_as: str | None = None
    """Of an engine that somebody else started: what meters call its devices, `gpu:0` or `node-b/gpu:0,1`."""

    def __str__(self) -> str:
        if self.kind == "gpu":
            return f"gpu:{','.join(map(str, self.gpus))}"
        return self.metered_as or self.kind


@contextlib.contextmanager
def _nvml(given: Any) -> Iterator[Any]:
    """NVML (`given` instead, if any), or None where there is no library, driver or GPU."""
    try:
        nvml = given or importlib.import_module("pynvml")  # only machines with a GPU pay for it
    except (ImportError, OSError):
        yield None
        return
    try:
        nvml.nvmlInit()
    except (OSError, nvml.NVMLError):
        yield None
        return
    try:
        yield nvml
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def find_gpus(environ: Mapping[str, str] | None = None, *, nvml: Any = None) -> tuple[Gpu, ...]:
    """The NVIDIA GPUs of this machine that `environ` lets us use; none if NVML is absent."""
    environ = os.environ if environ is None else environ  # noqa: TID251  # only for CUDA_VISIBLE_DEVICES
    visible = _visible(environ.get("CUDA_VISIBLE_DEVICES"))
    with _nvml(nvml) as library:
        if library is None:
            return ()
        try:
            count = library.nvmlDeviceGetCount()
        except library.NVMLError:
            return ()
        found = (_gpu(library, index) for index in range(count) if visible is None or index in visible)
        return tuple(gpu for gpu in found if gpu is not None)


def _visible(text: str | None) -> frozenset[int] | None:
    """`1,3` → {1, 3}, and nothing → none of them; None: any, for it does not say it in plain indexes."""
    try:
        return None if text is None else frozenset(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        return None


def _gpu(nvml: Any, index: int) -> Gpu | None:
    """None: NVML does not let us at it, or it is lost."""
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        capability = tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle))
    except nvml.NVMLError:
        return None
    try:
        memory = Bytes(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError:
        memory = None
    return Gpu(index=index, compute_capability=capability, memory_bytes=memory)


def gpu_memory_of(pids: Collection[int], gpus: Sequence[int], *, nvml: Any = None) -> Bytes | None:
    """Device memory that these processes hold; None if NVML cannot tell (as in some containers)."""
    with _nvml(nvml) as library:
        if library is None:
            return None
        try:
            handles = [library.nvmlDeviceGetHandleByIndex(index) for index in gpus]
            held = [
                process.usedGpuMemory
                for handle in handles
                for process in library.nvmlDeviceGetComputeRunningProcesses(handle)
                if process.pid in pids
            ]
        except library.NVMLError:  # no permission, MIG, a lost GPU
            return None
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
        # `gpu:0` is this machine's: of an engine elsewhere it says nothing that a meter knows.
        known = "/" in kind or (kind == "gpu" and is_loopback(urlsplit(settings.url or "").hostname or ""))
        return Place(kind="remote", metered_as=settings.device if known else None)
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


class CpuAbilities(NamedTuple):
    """What an x86-64 CPU can; None: another architecture (its abilities have other names), or unknown."""

    avx512: bool | None = None
    amx: bool | None = None


def cpu_abilities(cpuinfo: Path = CPUINFO) -> CpuAbilities:
    """Of this machine."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return CpuAbilities()
    flags = (line.partition(":")[2].split() for line in lines if line.startswith("flags"))
    first = next(flags, None)
    return CpuAbilities() if first is None else CpuAbilities(avx512="avx512f" in first, amx="amx_tile" in first)


def facts_of(settings: EngineSettings, place: Place, gpus: Sequence[Gpu], *, cpu: CpuAbilities) -> DeviceFacts:
    """What the rules must know of an engine's device."""
    if place.kind != "gpu":
        able = cpu if place.kind == "cpu" else CpuAbilities()
        return DeviceFacts(kind="cpu", avx512=able.avx512, amx=able.amx)
    used = [gpu for gpu in gpus if gpu.index in place.gpus]
    known = [gpu.memory_bytes for gpu in used if gpu.memory_bytes is not None]
    offload = int((settings.options.cpu_offload_gb or 0) * _BYTES_PER_GIB) * len(used)
    return DeviceFacts(
        kind="cuda",
        compute_capability=min((gpu.compute_capability for gpu in used), default=None),
        memory_bytes=Bytes(sum(known) + offload) if known and len(known) == len(used) else None,
    )
