"""Makes a frame a second and a table now and then, and tells whoever listens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from server.clock import Clock
from server.control.live.frame import Totals, power_between, served_between, totals_of
from server.control.live.history import History
from server.telemetry.traffic import TrafficTotals
from server.units import Microjoules, Seconds
from server.wire import Outcome

__all__ = ["Energy", "Feed", "FeedSources"]

_EVERY: Final = Seconds(1.0)
_TABLE_EVERY: Final = 3
"""Frames."""
_LONGEST_STEP: Final = Seconds(10.0)
"""After a longer pause the machine slept: a rate over it says nothing."""
_BEHIND: Final = 30
"""Messages that wait for a listener; one that is further behind is let go, and comes again."""
_MOST_LISTENERS: Final = 100
_FAILED: Final = frozenset(outcome.value for outcome in Outcome) - {
    Outcome.OK.value,
    Outcome.CLIENT_ERROR.value,
    Outcome.CANCELLED.value,
}


class Energy(Protocol):
    """The part of the energy accounts that is shown."""

    @property
    def accounts(self) -> Mapping[tuple[str, ...], Microjoules]: ...

    @property
    def devices(self) -> Mapping[tuple[str, str], Microjoules]: ...

    @property
    def closed_until(self) -> Seconds | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedSources:
    """Where the figures come from; all but `table` return at once."""

    traffic: Callable[[], TrafficTotals]
    energy: Callable[[], Energy]
    status: Callable[[], dict[str, Any]]
    """Engines, adapters, workers: as `/api/status`."""
    carbon: Callable[[], dict[str, Any] | None]
    """Intensity and its source; None: unknown."""
    table: Callable[[], dict[str, Any]]
    """As `/api/efficiency`; called on a thread."""


class Feed:
    """Server-sent events for any number of pages, made once for all. Of the event loop."""

    def __init__(self, sources: FeedSources, clock: Clock) -> None:
        self._sources = sources
        self._clock = clock
        self._history = History()
        self._last: Totals | None = None
        self._accounted: Totals | None = None
        """When the accounts had last gone on."""
        self._listeners: set[asyncio.Queue[bytes | None]] = set()
        self._ticks = 0
        self._states: list[tuple[str, str]] = []
        """Of each engine, as told last."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(_EVERY)
            frame = self.tick()
            if self._listeners and frame is not None:
                self._tell(_event("frame", frame))
                await self._tell_slowly()

    def tick(self) -> dict[str, Any] | None:
        """Look at everything, and remember it; None at the first time and after a long pause."""
        now, wall, traffic, energy = (
            self._clock.monotonic(),
            self._clock.wall(),
            self._sources.traffic(),
            self._sources.energy(),
        )
        totals = totals_of(
            now,
            traffic,
            failed=_FAILED,
            accounts=energy.accounts,
            devices=energy.devices,
            accounted_until=energy.closed_until,
        )
        last, self._last = self._last, totals
        accounted, self._accounted = self._accounted, self._accounted or totals
        if last is None or accounted is None or not 0 < totals.at - last.at <= _LONGEST_STEP:
            self._accounted = totals
            return None
        served, power = served_between(last, totals, traffic, wall), power_between(accounted, totals, wall)
        if power is not None or accounted.accounted_until is None:
            self._accounted = totals
        self._history.add(served, power)
        return {"served": served.to_json(), "power": power.to_json() if power is not None else None}

    async def listen(self) -> AsyncIterator[bytes]:
        """Server-sent events: all there is, then what comes. Ends for one that does not keep up."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(_BEHIND)
        if len(self._listeners) >= _MOST_LISTENERS:
            return
        self._listeners.add(queue)
        try:
            yield _event("history", {**self._history.to_json(), "now": self._clock.wall()})
            yield self._status_event(self._sources.status())
            yield await self._table_event()
            while (message := await queue.get()) is not None:
                yield message
        finally:
            self._listeners.discard(queue)

    async def _tell_slowly(self) -> None:
        """The table every few seconds; the state of everything with it, and at once when an engine's has changed."""
        self._ticks += 1
        with_table = self._ticks % _TABLE_EVERY == 0
        status = self._sources.status()
        states = [(engine["name"], engine["state"]) for engine in status.get("engines", ())]
        if with_table or states != self._states:
            self._states = states
            self._tell(self._status_event(status))
        if with_table:
            self._tell(await self._table_event())

    async def _table_event(self) -> bytes:
        # Quantiles of many configurations take milliseconds: not on the loop that meters and takes records.
        return _event("table", await asyncio.to_thread(self._sources.table))

    def _status_event(self, status: Mapping[str, Any]) -> bytes:
        return _event("status", {**status, "carbon": self._sources.carbon()})

    def _tell(self, message: bytes) -> None:
        for queue in list(self._listeners):
            try:
                queue.put_nowait(message)
            except asyncio.QueueFull:
                self._listeners.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)


def _event(name: str, data: Mapping[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
