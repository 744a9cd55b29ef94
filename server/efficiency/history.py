"""Running totals, and the differences of two of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from operator import add, sub
from typing import Final, NamedTuple

from server.efficiency.served import NOTHING, Configuration, Served
from server.telemetry.labels import refold
from server.units import Seconds

__all__ = ["UNSEEN", "EngineTotals", "History", "Metered", "Span", "Totals"]

_ADAPTER: Final = 4
_STEPS: Final = 60
"""Totals kept in a window: its edge is sharp to a sixtieth of it."""
_MAX_WAITING: Final = 700
"""Totals that wait for their energy: the longest `energy.hold_s`, at one a second."""


class EngineTotals(NamedTuple):
    """Integrals over an engine's time since the sampler began; they only grow."""

    up_s: float = 0.0
    memory_s: float = 0.0
    """Time for which the next is known."""
    memory_share_s: float = 0.0
    """∫ memory held / memory that may be used."""
    compute_s: float = 0.0
    """∫ cores, or GPUs, that it may use, where it is known how busy they were."""
    compute_busy_s: float = 0.0
    """Of those, the busy ones."""
    steps_s: float = 0.0
    """Time for which the next is known."""
    steps: int = 0
    """Of its scheduler."""
    own_flops_s: float = 0.0
    """Time for which the next is known."""
    own_flops: float = 0.0
    """By the engine's own estimate."""

    def __add__(self, other: object) -> EngineTotals:
        assert isinstance(other, EngineTotals)
        return EngineTotals._make(map(add, self, other))

    def since(self, earlier: EngineTotals) -> EngineTotals:
        return EngineTotals._make(map(sub, self, earlier))


UNSEEN: Final = EngineTotals()


@dataclass(frozen=True, slots=True, kw_only=True)
class Metered:
    """What was used, and what was served with it: energy comes later than the requests that used it."""

    until: Seconds
    """Up to when the energy accounts are closed; of a difference, the seconds that it covers."""
    energy: dict[tuple[str, ...], int]
    """µJ by (engine, model, variant, precision, adapter, account)."""
    served: dict[Configuration, Served]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Everything at one moment."""

    at: Seconds
    engines: Mapping[str, EngineTotals]
    served: dict[Configuration, Served]
    metered: Metered | None
    """None: no window of any meter is closed yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What happened between two moments."""

    seconds: Seconds
    engines: Mapping[str, EngineTotals]
    served: dict[Configuration, Served]
    metered: Metered | None
    """None: no energy was accounted in it."""


class History:
    """The totals of a sliding window. The caller holds a lock."""

    def __init__(self, window: Seconds) -> None:
        self._window = window
        self._start: Totals | None = None
        self._first_metered: Metered | None = None
        self._kept: deque[Totals] = deque()
        self._last: Totals | None = None
        self._unmetered: deque[tuple[Seconds, dict[Configuration, Served]]] = deque(maxlen=_MAX_WAITING)
        self._aligned: tuple[Seconds, dict[Configuration, Served]] | None = None

    @property
    def last(self) -> Totals | None:
        return self._last

    def add(
        self,
        at: Seconds,
        engines: Mapping[str, EngineTotals],
        served: dict[Configuration, Served],
        energy: tuple[Seconds, dict[tuple[str, ...], int]] | None,
    ) -> None:
        """The state at a moment; the dictionaries belong to the history from now on."""
        self._unmetered.append((at, served))
        metered = None
        if energy is not None:
            metered = Metered(until=energy[0], energy=energy[1], served=self._served_at(energy[0]))
        self._last = totals = Totals(at=at, engines=engines, served=served, metered=metered)
        self._start = self._start or Totals(at=at, engines={}, served={}, metered=None)
        self._first_metered = self._first_metered or metered
        if not self._kept or at - self._kept[-1].at >= self._window / _STEPS:
            self._kept.append(totals)
        while len(self._kept) > 1 and self._kept[1].at <= at - self._window:
            self._kept.popleft()

    def over_window(self) -> Span | None:
        """The last window, or less where there is not so much; None: nothing has happened yet."""
        return self._span(self._kept[0], self._window_metered()) if self._kept else None

    def since_start(self) -> Span | None:
        return None if self._start is None else self._span(self._start, self._first_metered)

    def forget_adapter(self, name: str) -> None:
        """Its label was given away: what stands under it belongs to `other`, then and now."""
        every = [totals for totals in (self._last, *self._kept) if totals is not None]
        metered = [totals.metered for totals in every if totals.metered is not None]
        metered += [self._first_metered] if self._first_metered else []
        served = [one.served for one in every] + [one.served for one in metered]
        served += [one for _, one in self._unmetered] + ([self._aligned[1]] if self._aligned else [])
        for counts in {id(one): one for one in served}.values():
            refold(counts, _ADAPTER, name)
        for energy in {id(one.energy): one.energy for one in metered}.values():
            refold(energy, _ADAPTER, name)

    def _served_at(self, until: Seconds) -> dict[Configuration, Served]:
        """What was served when the accounts' last window ended."""
        while self._unmetered and self._unmetered[0][0] <= until:
            self._aligned = self._unmetered.popleft()
        return self._aligned[1] if self._aligned else {}

    def _window_metered(self) -> Metered | None:
        return next((totals.metered for totals in self._kept if totals.metered is not None), None)

    def _span(self, start: Totals, metered: Metered | None) -> Span:
        end = self._last
        assert end is not None
        return Span(
            seconds=Seconds(end.at - start.at),
            engines={name: now.since(start.engines.get(name, UNSEEN)) for name, now in end.engines.items()},
            served=_served_between(start.served, end.served),
            metered=None if metered is None or end.metered is None else _between(metered, end.metered),
        )


def _between(start: Metered, end: Metered) -> Metered | None:
    if end.until <= start.until:
        return None
    return Metered(
        until=Seconds(end.until - start.until),
        energy={key: now - start.energy.get(key, 0) for key, now in end.energy.items()},
        served=_served_between(start.served, end.served),
    )


def _served_between(
    start: dict[Configuration, Served], end: dict[Configuration, Served]
) -> dict[Configuration, Served]:
    return {key: now.since(start.get(key, NOTHING)) for key, now in end.items()}
