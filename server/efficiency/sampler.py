"""Follows all engines from second to second, and remembers a window of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, Protocol

from server.clock import Clock
from server.config.efficiency import EfficiencySettings
from server.efficiency.history import History, Span
from server.efficiency.served import ServedTally
from server.efficiency.use import UseSource
from server.efficiency.watch import EngineWatch
from server.fleet import Replica
from server.telemetry.labels import LabelCaps
from server.units import Microjoules, Seconds
from server.wire import RequestRecord

__all__ = ["EnergyAccounts", "Sampled", "Sampler", "SamplerSources"]

_EVERY: Final = Seconds(1.0)
_LONGEST_STEP: Final = Seconds(10.0)
"""A gap between two ticks that is longer stays unknown: the machine slept, or the process stood still."""

_SCOPE: Final = 1
_ENGINE: Final = 2
_PHASE: Final = 8
"""Places in the key of an energy account."""


class EnergyAccounts(Protocol):
    """The part of the energy accounts that is read here."""

    @property
    def accounts(self) -> Mapping[tuple[str, ...], Microjoules]:
        """By (device, scope, engine, model, variant, precision, adapter, account, phase)."""

    @property
    def closed_until(self) -> Seconds | None:
        """Monotonic time up to which every device is accounted; None: nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerSources:
    """What is looked at once a second."""

    replicas: Callable[[], Sequence[Replica]]
    energy: Callable[[], EnergyAccounts]
    uses: UseSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """What was seen, for another thread to read."""

    window: Span | None
    start: Span | None
    """Since the sampler began."""
    scopes: Mapping[str, AbstractSet[str]]
    """What the meters behind each engine's joules cover."""


class Sampler:
    """Fed by `take` with every batch's records and by `tick` once a second (`run`); read from any thread."""

    def __init__(self, settings: EfficiencySettings, sources: SamplerSources, *, caps: LabelCaps, clock: Clock) -> None:
        self._sources = sources
        self._caps = caps
        self._clock = clock
        self._tally = ServedTally(caps.adapters, settings.slo)
        self._history = History(Seconds(settings.window_s))
        self._watches: dict[str, EngineWatch] = {}
        self._scopes: set[tuple[str, str]] = set()
        caps.adapters.on_evict(self._forget_adapter)

    def take(self, records: Sequence[RequestRecord]) -> None:
        """Count requests that have ended; each must come once."""
        with self._caps.lock:
            self._tally.take(records)

    def tick(self) -> None:
        """Look at everything."""
        at, replicas = self._clock.monotonic(), self._sources.replicas()
        uses = self._sources.uses.look(replicas, at)
        with self._caps.lock:  # while energy is read, too: a name that is folded meanwhile would be counted twice
            last = self._history.last
            step = 0.0 if last is None else at - last.at
            served = self._tally.now()
            for replica in replicas:
                watch = self._watches.setdefault(replica.name, EngineWatch())
                watch.advance(replica, uses.get(replica.name), step if step <= _LONGEST_STEP else 0.0)
            engines = {name: watch.totals for name, watch in self._watches.items()}
            self._history.add(at, engines, served, self._read_energy())

    async def run(self) -> None:
        """Tick until cancelled."""
        try:
            while True:
                self.tick()
                await asyncio.sleep(_EVERY)
        finally:
            self._sources.uses.close()

    def sampled(self) -> Sampled:
        """A consistent copy."""
        with self._caps.lock:
            return Sampled(
                window=self._history.over_window(),
                start=self._history.since_start(),
                scopes={engine: {s for e, s in self._scopes if e == engine} for engine, _ in self._scopes},
            )

    def _read_energy(self) -> tuple[Seconds, dict[tuple[str, ...], int]] | None:
        energy = self._sources.energy()
        if energy.closed_until is None:
            return None
        sums: dict[tuple[str, ...], int] = {}
        for key, amount in energy.accounts.items():  # hundreds, once a second
            self._scopes.add((key[_ENGINE], key[_SCOPE]))
            booked = key[_ENGINE:_PHASE]
            sums[booked] = sums.get(booked, 0) + amount
        return energy.closed_until, sums

    def _forget_adapter(self, name: str) -> None:
        with self._caps.lock:
            self._tally.forget_adapter(name)
            self._history.forget_adapter(name)
