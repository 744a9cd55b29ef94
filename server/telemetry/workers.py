"""What the gateway workers are doing, added up over their lives."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from server.wire import Batch, Hello, WorkerGauges

__all__ = ["Workers", "WorkersNow"]

_MAX_LIVES = 1024
"""Lives of workers remembered; a worker's batches can only come twice while it lives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersNow:
    """A copy of the state of all workers."""

    up: Mapping[int, bool]
    """By slot, every slot ever seen."""
    in_flight: Mapping[str, int]
    """By engine."""
    queued: int | None
    """None: no worker is connected."""
    rejections: Mapping[str, int]
    retries: Mapping[str, int]
    records_dropped: int


@dataclass(slots=True)
class _Life:
    """One worker from its start to its end."""

    seq: int = 0
    rejections: Mapping[str, int] = field(default_factory=dict)
    retries: Mapping[str, int] = field(default_factory=dict)
    dropped: int = 0


@dataclass(slots=True)
class _Connected:
    slot: int
    gauges: WorkerGauges


class Workers:
    """Refuses batches that came before; keeps gauges by worker and monotone totals over worker restarts."""

    def __init__(self) -> None:
        self._lives: OrderedDict[str, _Life] = OrderedDict()
        self._connected: dict[str, _Connected] = {}
        self._slots: set[int] = set()
        self._rejections: Counter[str] = Counter()
        self._retries: Counter[str] = Counter()
        self._dropped = 0

    def take(self, batch: Batch, worker: Hello) -> bool:
        """False if this batch was taken before (a worker sends its batches in order, again after a reconnection)."""
        life = self._lives.setdefault(worker.boot, _Life())
        self._lives.move_to_end(worker.boot)
        if len(self._lives) > _MAX_LIVES:
            self._lives.popitem(last=False)
        if batch.seq <= life.seq:
            return False
        life.seq = batch.seq
        self._add_up(life, batch.gauges)
        self._show(batch, worker)
        return True

    def left(self, worker: Hello) -> None:
        """The worker's connection is gone: its gauges no longer count."""
        self._slots.add(worker.slot)
        self._connected.pop(worker.boot, None)

    def now(self) -> WorkersNow:
        connected = list(self._connected.values())
        up = dict.fromkeys(sorted(self._slots), False)
        in_flight: Counter[str] = Counter()
        for worker in connected:
            up[worker.slot] = True
            in_flight.update(worker.gauges.in_flight)
        return WorkersNow(
            up=up,
            in_flight=in_flight,
            queued=sum(worker.gauges.queued for worker in connected) if connected else None,
            rejections=dict(self._rejections),
            retries=dict(self._retries),
            records_dropped=self._dropped,
        )

    def _add_up(self, life: _Life, gauges: WorkerGauges) -> None:
        """Add what the worker's counters grew by; they start at 0 with the worker, not with the control plane."""
        self._rejections.update(_growth(life.rejections, gauges.rejections))
        self._retries.update(_growth(life.retries, gauges.retries))
        self._dropped += max(0, gauges.records_dropped - life.dropped)
        life.rejections, life.retries, life.dropped = gauges.rejections, gauges.retries, gauges.records_dropped

    def _show(self, batch: Batch, worker: Hello) -> None:
        self._slots.add(worker.slot)
        shown = self._connected.setdefault(worker.boot, _Connected(worker.slot, batch.gauges))
        shown.gauges = batch.gauges


def _growth(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {reason: max(0, count - before.get(reason, 0)) for reason, count in after.items()}
