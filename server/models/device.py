"""What the rules must know of the device an engine runs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from server.units import Bytes

__all__ = ["DEVICES", "DeviceFacts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """One engine's device; what is None is unknown, and no rule that needs it refuses anything."""

    kind: Literal["cpu", "cuda"]
    avx512: bool | None = None
    """Of an x86-64 CPU; other architectures have kernels of their own, so there it is None."""
    amx: bool | None = None
    """Of an x86-64 CPU: tile registers (Sapphire Rapids and newer), which FP8 in blocks needs."""
    compute_capability: tuple[int, int] | None = None
    """Of the oldest GPU the engine uses: (8, 9) is Ada, (9, 0) Hopper."""
    memory_bytes: Bytes | None = None
    """Where weights may lie: all the engine's GPUs together, plus what it may offload to the host."""


def _cuda(major: int, minor: int) -> DeviceFacts:
    return DeviceFacts(kind="cuda", compute_capability=(major, minor))


DEVICES: Final[Mapping[str, DeviceFacts]] = {
    "cpu": DeviceFacts(kind="cpu", avx512=True, amx=False),
    "cpu-amx": DeviceFacts(kind="cpu", avx512=True, amx=True),
    "cpu-avx2": DeviceFacts(kind="cpu", avx512=False, amx=False),
    "sm70": _cuda(7, 0),
    "sm75": _cuda(7, 5),
    "sm80": _cuda(8, 0),
    "sm86": _cuda(8, 6),
    "sm89": _cuda(8, 9),
    "sm90": _cuda(9, 0),
    "sm100": _cuda(10, 0),
    "sm103": _cuda(10, 3),
    "sm120": _cuda(12, 0),
}
"""Kinds of devices by name: `cpu` is an x86-64 server with AVX-512; GPUs are named by compute capability."""
