"""Replays a trace: the same accountant, on requests and readings from files."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np

from server.accounts import Account, RequestEnergy
from server.config import EnergySettings
from server.energy.accountant import EnergyAccountant
from server.energy.attribution import Attribution, Share, Shares, Window
from server.energy.methods import AUTOMATIC, attribution_of
from server.energy.replay.feed import WORKER, AsTheyCame, TraceClock, TraceMeter, batch_of, engine_at
from server.energy.replay.lines import Warnings
from server.energy.replay.meter_file import DeviceTrace, read_meter
from server.energy.replay.requests_file import ENGINE, Traced, read_requests
from server.units import Seconds

__all__ = ["Replayed", "replay"]

_ACCOUNT: Final = 7
"""Where the account stands in the keys of `EnergyNow.accounts`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What came of it. Σ requests + the accounts but `active` = `meter`, exactly."""

    requests: Sequence[tuple[Traced, RequestEnergy | None]]
    """In the order of the file; None: no window of the meter covers any of its time."""
    accounts: dict[Account, int]
    """µJ."""
    windows: int
    residual: int
    """µJ that scaling had to move, up or down, over all windows."""
    method: str
    """Of those used, the one that shared out the most."""
    confidence: float
    """Mean over the joules that requests pay, or over the windows if they pay none."""
    warnings: Warnings

    @property
    def meter(self) -> int:
        """µJ of all windows."""
        return sum(self.accounts.values())


def replay(requests: Path, meter: Path, *, engine: str | None = None, method: str = AUTOMATIC) -> Replayed:
    """Share the meter's joules out to the requests.

    With `engine`, only that engine is on the meter, and requests that name none are its. Raises `TraceError` for a file
    that cannot be read, `ConfigError` for a method that does not exist; all else that is odd is counted in `warnings`.
    """
    warnings = Warnings()
    traced, devices = read_requests(requests, engine, warnings), read_meter(meter, warnings)
    trace = _Trace(traced, [device for device in devices if len(device.times) > 1], engine)
    attribution = attribution_of(method)
    trace.play(_Learning(attribution))
    notes = _Notes(attribution)
    accountant, energies = trace.play(notes)
    of_each = [energies.get(place) for place in range(len(traced))]
    _count_unmetered(traced, of_each, warnings)
    accounts = dict.fromkeys(Account, 0)
    for key, amount in accountant.snapshot().accounts.items():
        accounts[Account(key[_ACCOUNT])] += amount
    return Replayed(
        requests=list(zip(traced, of_each, strict=True)),
        accounts=accounts,
        windows=notes.windows,
        residual=notes.residual,
        method=notes.method,
        confidence=notes.confidence,
        warnings=+warnings,
    )


def _count_unmetered(traced: Sequence[Traced], energies: Sequence[RequestEnergy | None], warnings: Warnings) -> None:
    for request, energy in zip(traced, energies, strict=True):
        if request.record is not None:
            warnings["requests_outside_the_meter"] += energy is None
            warnings["requests_metered_in_part"] += energy is not None and not energy.whole


class _Trace:
    """The requests and readings, ready to be played as often as wanted."""

    def __init__(self, traced: Sequence[Traced], devices: Sequence[DeviceTrace], engine: str | None) -> None:
        self._devices = devices
        known = [(one.record.sent_at, place) for place, one in enumerate(traced) if one.record is not None]
        self._order = sorted(cast("list[tuple[float, int]]", known))
        self._traced = traced
        names = dict.fromkeys(one.record.engine for one in traced if one.record is not None and one.record.engine)
        self._engines = [engine_at(name, len(devices)) for name in names or [engine or ENGINE]]

    def play(self, attribution: Attribution) -> tuple[EnergyAccountant, dict[int, RequestEnergy]]:
        """The accountant at the end, and what each request used, by its place in the file."""
        clock = TraceClock()
        meter = TraceMeter(self._devices, clock)
        accountant = EnergyAccountant(
            [meter],
            replicas=lambda: self._engines,
            clock=clock,
            settings=EnergySettings(hold_s=0.0),
            caps=AsTheyCame(),
        )
        accountant.attribution = attribution
        accountant.readings.min_window = Seconds(0.0)
        left: list[RequestEnergy] = []
        fed = 0
        for seq, at in enumerate(meter.moments(), 1):
            begun = bisect_left(self._order, (at, -1))
            accountant.take(batch_of(seq, [self._traced[place] for _, place in self._order[fed:begun]]), WORKER)
            fed = begun
            clock.at = Seconds(at)
            left += accountant.tick()
            accountant.take_postings()
        left += accountant.finish()
        return accountant, {int(energy.id): energy for energy in left}


class _Learning:
    """Lets a method see each window, and shares nothing out."""

    method = "none"
    confidence = 0.0

    def __init__(self, learner: Attribution) -> None:
        self._learner = learner

    def learn(self, window: Window) -> None:
        self._learner.learn(window)

    def attribute(self, window: Window) -> Shares:
        self.learn(window)
        nothing = np.zeros(len(window.requests), np.int64)
        everything = Share(account=Account.UNATTRIBUTED, engine=None, energy=window.energy)
        return Shares(prefill=nothing, decode=nothing, others=[everything], method=self.method, confidence=0.0)


class _Notes:
    """A method, and what it said of its windows."""

    def __init__(self, attribution: Attribution) -> None:
        self._attribution = attribution
        self.windows = self.residual = 0
        self._joules: Counter[str] = Counter()
        self._windows: Counter[str] = Counter()
        self._trusted = self._trusted_joules = 0.0

    @property
    def method(self) -> str:
        used = +self._joules or self._windows
        return max(used, key=used.__getitem__) if used else self._attribution.method

    @property
    def confidence(self) -> float:
        if paid := self._joules.total():
            return self._trusted_joules / paid
        return self._trusted / self.windows if self.windows else 0.0

    def learn(self, window: Window) -> None:
        self._attribution.learn(window)

    def attribute(self, window: Window) -> Shares:
        shares = self._attribution.attribute(window)
        paid = int(shares.requests.sum())
        self.windows += 1
        self.residual += abs(shares.residual)
        self._windows[shares.method] += 1
        self._joules[shares.method] += paid
        self._trusted += shares.confidence
        self._trusted_joules += shares.confidence * paid
        return shares
