"""Keeps label values bounded: names beyond the cap become `other`."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from typing import Any, Final

from server.clock import Clock
from server.config import TelemetrySettings
from server.units import Seconds
from server.wire import NO_ADAPTER

__all__ = ["NONE", "OTHER", "LabelCap", "LabelCaps", "refold"]

NONE: Final = NO_ADAPTER
"""The value of a label that does not apply."""
OTHER: Final = "other"
"""The value of every name beyond the cap."""

_STALE_AFTER = Seconds(3600.0)
"""A name gives way only after this silence: with one name too many, plain LRU would swap names at every request."""


class LabelCap:
    """At most `limit` names at a time; when full, the longest silent one gives way, if it was silent for an hour."""

    def __init__(self, limit: int, clock: Clock) -> None:
        self._limit = limit
        self._clock = clock
        self._seen: OrderedDict[str, Seconds] = OrderedDict()
        self._listeners: list[Callable[[str], None]] = []

    def on_evict(self, fold: Callable[[str], None]) -> None:
        """Call `fold(name)` when `name` has lost its place: what stands under it must move to `other`."""
        self._listeners.append(fold)

    def __call__(self, name: str) -> str:
        """The label of `name`: itself, or `other`. Using a name keeps it."""
        if name in (NONE, OTHER):
            return name
        now = self._clock.monotonic()
        if name not in self._seen and not self._make_room(now):
            return OTHER
        self._seen[name] = now
        self._seen.move_to_end(name)
        return name

    def shown(self, name: str) -> str:
        """The label that `name` would get, without using it; the only method for other threads."""
        return name if name in self._seen or name == NONE or len(self._seen) < self._limit else OTHER

    def _make_room(self, now: Seconds) -> bool:
        if len(self._seen) < self._limit:
            return True
        oldest, seen_at = next(iter(self._seen.items()))
        if now - seen_at < _STALE_AFTER:
            return False
        del self._seen[oldest]
        for fold in self._listeners:
            fold(oldest)
        return True


class LabelCaps:
    """The caps of one control plane: telemetry and energy share them, so that their series join."""

    def __init__(self, settings: TelemetrySettings, clock: Clock) -> None:
        self.lock = threading.RLock()
        """Of all that labels names, for one name's label may move what others count; reentrant for the same reason."""
        self.max_series = settings.max_series
        self.adapters = LabelCap(settings.max_adapters, clock)
        self.tenants = LabelCap(settings.max_tenants, clock)


def refold(series: MutableMapping[tuple[str, ...], Any], position: int, name: str) -> None:
    """Add what stands under `name` at `position` of the key to `other`, and forget `name`."""
    for key in [key for key in series if key[position] == name]:
        target = (*key[:position], OTHER, *key[position + 1 :])
        amount = series.pop(key)
        series[target] = series[target] + amount if target in series else amount
