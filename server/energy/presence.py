"""What workers say runs now, known or not by name."""

from __future__ import annotations

from collections import deque

from server.wire import Batch, Hello

__all__ = ["Presence"]


class Presence:
    """The workers' last reports, and which engines were seen running when."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, int]] = {}
        """By worker: when it reported, and how many requests it had at engines."""
        self._seen: deque[tuple[float, frozenset[str]]] = deque()

    def take(self, batch: Batch, worker: Hello) -> None:
        running = {engine: count for engine, count in batch.gauges.in_flight.items() if count}
        self._last[worker.boot] = (batch.at, sum(running.values()))
        self._seen.append((batch.at, frozenset(running)))

    def left(self, worker: Hello) -> None:
        self._last.pop(worker.boot, None)

    def all_reported_since(self, at: float) -> bool:
        """Has every worker (and at least one) said what happened up to `at`?"""
        return bool(self._last) and all(reported >= at for reported, _ in self._last.values())

    def in_flight(self) -> int:
        """Requests at engines, by the last reports."""
        return sum(count for _, count in self._last.values())

    def engines_seen(self, start: float, end: float) -> frozenset[str]:
        """Engines that had requests at some report within start … end."""
        return frozenset[str]().union(*(engines for at, engines in self._seen if start <= at <= end))

    def forget(self, before: float) -> None:
        while self._seen and self._seen[0][0] < before:
            self._seen.popleft()
