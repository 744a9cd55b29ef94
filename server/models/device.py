"""What the rules must know of the device an engine runs on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from server.units import Bytes

__all__ = ["DeviceFacts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """One engine's device; what is None is unknown, and no rule that needs it refuses anything."""

    kind: Literal["cpu", "cuda"]
    avx512: bool | None = None
    """Of an x86-64 CPU; other architectures have kernels of their own, so there it is None."""
    compute_capability: tuple[int, int] | None = None
    """Of the oldest GPU the engine uses: (8, 9) is Ada, (9, 0) Hopper."""
    memory_bytes: Bytes | None = None
    """Where weights may lie: all the engine's GPUs together, plus what it may offload to the host."""
