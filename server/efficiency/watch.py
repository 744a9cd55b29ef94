"""Adds up one engine's time: memory, cores, steps."""

from __future__ import annotations

from typing import Final

from server.efficiency.history import EngineTotals
from server.efficiency.use import Use, gpus_of
from server.fleet import SERVING, EngineState, Replica

__all__ = ["EngineWatch"]

_UP: Final = SERVING | {EngineState.UNHEALTHY, EngineState.DRAINING}
_UNKNOWN: Final = Use()


class _Growth:
    """Of a counter that restarts with the engine; what it counted before it was first seen is not ours."""

    __slots__ = ("_before",)

    def __init__(self) -> None:
        self._before: float | None = None

    def of(self, now: float | None, *, restarted: bool) -> float | None:
        """Since the last time it was known; None: it is not known now, or was not before."""
        if now is None:
            return None
        before, self._before = self._before, now
        if before is None:
            return None
        return now if restarted or now < before else now - before


class EngineWatch:
    """One engine, from tick to tick."""

    def __init__(self) -> None:
        self.totals = EngineTotals()
        self._process: tuple[int | None, int] | None = None
        self._steps = _Growth()
        self._own_flops = _Growth()
        self._restarted = False

    def advance(self, replica: Replica, use: Use | None, step_s: float) -> None:
        """Count the last `step_s` seconds, at the end of which the engine is as `replica` and `use` say."""
        now, use = self.totals, use or _UNKNOWN
        self._note_process(replica)
        memory = self._memory_share(use)
        told = use.compute_s is not None and use.compute_busy_s is not None
        gauges = replica.gauges
        steps = self._steps.of(gauges.steps_total if gauges else None, restarted=self._restarted)
        own = self._own_flops.of(_own_flops(replica), restarted=self._restarted)
        if gauges is not None:
            self._restarted = False
        self.totals = EngineTotals(
            up_s=now.up_s + step_s * (replica.state in _UP),
            memory_s=now.memory_s + step_s * (memory is not None),
            memory_share_s=now.memory_share_s + step_s * (memory or 0.0),
            compute_s=now.compute_s + (use.compute_s or 0.0) * told,
            compute_busy_s=now.compute_busy_s + (use.compute_busy_s or 0.0) * told,
            steps_s=now.steps_s + step_s * (steps is not None),
            steps=now.steps + int(steps or 0),
            own_flops_s=now.own_flops_s + step_s * (own is not None),
            own_flops=now.own_flops + (own or 0.0),
        )

    def _note_process(self, replica: Replica) -> None:
        """Another process: its counters begin at 0, however far they have come when they are first read."""
        process = (replica.pid, replica.restarts)
        if self._process is not None and process != self._process and replica.pid is not None:
            self._restarted = True
        if replica.pid is not None or self._process is None:
            self._process = process

    @staticmethod
    def _memory_share(use: Use) -> float | None:
        if use.memory_held_bytes is None or not use.memory_allowed_bytes:
            return None
        return use.memory_held_bytes / use.memory_allowed_bytes


def _own_flops(replica: Replica) -> float | None:
    """By the engine's own count, over all its GPUs."""
    counted = replica.gauges.estimated_flops_per_gpu_total if replica.gauges else None
    return None if counted is None else counted * max(1, len(gpus_of(replica)))
