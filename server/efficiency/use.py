"""How much of its memory and cores an engine uses: the values, and who reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from server.fleet import Replica
from server.units import Seconds

__all__ = ["Use", "UseSource", "UseSources", "gpus_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """Of one engine, now. None is unknown."""

    memory_held_bytes: int | None = None
    memory_allowed_bytes: int | None = None
    """What it may hold: its GPUs' memory; on a CPU its cgroup's limit, else the machine's memory."""
    compute_s: float | None = None
    """Core-seconds, or GPU-seconds, that it had since they were last told; None: they are not told this time."""
    compute_busy_s: float | None = None
    """Those in which something was computed."""


class UseSource(Protocol):
    """Reads what engines use of one kind of device."""

    def look(self, replicas: Sequence[Replica], at: Seconds) -> Mapping[str, Use]:
        """By engine; those it cannot tell about are absent. Cheap (≤ 1 ms on average), never raises."""

    def close(self) -> None:
        """Let go of what is held."""


class UseSources:
    """Asks about each engine the one that knows its device; of engines elsewhere nobody knows anything."""

    def __init__(self, *, host: UseSource, gpus: UseSource) -> None:
        self._host = host
        self._gpus = gpus

    def look(self, replicas: Sequence[Replica], at: Seconds) -> Mapping[str, Use]:
        here = [replica for replica in replicas if replica.pid is not None]
        on_gpus = [replica for replica in here if gpus_of(replica)]
        on_host = [replica for replica in here if replica.device == "cpu"]
        return {**self._host.look(on_host, at), **(self._gpus.look(on_gpus, at) if on_gpus else {})}

    def close(self) -> None:
        self._host.close()
        self._gpus.close()


def gpus_of(replica: Replica) -> tuple[int, ...]:
    """`gpu:0,1` → (0, 1); other devices → ()."""
    kind, _, numbers = replica.device.partition(":")
    return tuple(map(int, numbers.split(","))) if kind == "gpu" and numbers else ()
