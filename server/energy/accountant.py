"""Closes the meters' windows, and knows who used how many joules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import numpy as np

from server.accounts import EnergyPrice, Phase, Posting, RequestEnergy
from server.clock import Clock
from server.config import EnergySettings
from server.energy.attribution import Account, Attribution, Share, Shares, Window
from server.energy.books import Books, EnergyNow, EngineLabels, NameCaps
from server.energy.columns import Flags, Floats, Integers
from server.energy.describe import describe
from server.energy.devices import Device, OpenWindow, is_on
from server.energy.idle import IdleBearers
from server.energy.meter import EnergyMeter
from server.energy.methods import attribution_of, marginal_of
from server.energy.presence import Presence
from server.energy.prices import PriceBook
from server.energy.processes import ProcessTable
from server.energy.readings import Readings
from server.energy.savings import Savings
from server.energy.settle import Tab
from server.energy.work import MAX_REQUESTS, WorkBook
from server.fleet import Replica
from server.units import Microjoules, Seconds
from server.wire import Batch, Hello

__all__ = ["EnergyAccountant"]

_Key = TypeVar("_Key")

_LONGEST_WINDOW: Final = Seconds(60.0)
"""After a longer silence of a meter, nobody can say whose the joules were."""
_FORGET_AFTER: Final = Seconds(60.0)
"""Beyond the hold, requests wait this long for windows of a meter that is down."""


class EnergyAccountant:
    """Written on the event loop, read from any thread; one lock, which is the caps', held for a few ms at most."""

    def __init__(
        self,
        meters: Sequence[EnergyMeter],
        *,
        replicas: Callable[[], Sequence[Replica]],
        clock: Clock,
        settings: EnergySettings,
        caps: NameCaps,
        processes: ProcessTable | None = None,
    ) -> None:
        self.attribution: Attribution = attribution_of(settings.method)
        """May be exchanged before the first tick, for one that has learned already."""
        self.readings = Readings(meters, clock=clock, processes=processes or ProcessTable())
        self._replicas = replicas
        self._clock = clock
        self._hold_s = settings.hold_s
        self._lock = caps.lock
        self._works = WorkBook()
        self._tab = Tab(self._works)
        self._books = Books(caps, IdleBearers(settings))
        self._presence = Presence()
        self._price_book = PriceBook()
        self._prices: Mapping[str, EnergyPrice] = {}
        self._savings = Savings()
        self._residuals: dict[str, int] = {}
        self._engines: dict[str, EngineLabels] = {}
        self._final: list[RequestEnergy] = []
        caps.adapters.on_evict(self._forget_adapter)
        caps.tenants.on_evict(self._forget_tenant)

    def take(self, batch: Batch, worker: Hello) -> None:
        """Learn who ran when. Each batch must come once: give only those that `Traffic.take` accepted."""
        with self._lock:
            accounted_until = max((device.closed_until for device in self._devices), default=-math.inf)
            self._works.take(batch, worker, accounted_until=accounted_until)
            self._presence.take(batch, worker)
            self._savings.take(batch.records, self._prices)
            if len(self._works) > MAX_REQUESTS:
                oldest = np.arange(len(self._works)) < len(self._works) - MAX_REQUESTS
                self._leave(oldest, whole=np.zeros_like(oldest), chunks_before=-math.inf)

    def left(self, worker: Hello) -> None:
        """The worker's connection is gone."""
        with self._lock:
            self._presence.left(worker)
            self._works.left(worker)

    def tick(self) -> list[RequestEnergy]:
        """Read the meters, close what can be closed; returns the requests whose energy is now final.

        Each comes once, whether completed or not. Those of which nothing is known do not come at all. Never raises for
        a meter: it is shown as down.
        """
        with self._lock:
            replicas = self._replicas()
            self._engines |= {one.name: (one.name, one.model, one.variant, one.precision) for one in replicas}
            self.readings.take(replicas)
            now = self._clock.monotonic()
            self._works.give_up_silent(now)
            for device in self._devices:
                while device.windows and self._can_close(device.windows[0], now):
                    self._close(device, device.windows.popleft())
            self._settle(now, replicas)
            self._prices = self._price_book.prices(
                now, Seconds(self._hold_s), lambda engine: marginal_of(self.attribution, engine)
            )
            return self._take_final()

    def finish(self) -> list[RequestEnergy]:
        """At the end: close all windows with what is known; returns all requests that are left, as `tick` does."""
        with self._lock:
            for device in self._devices:
                while device.windows:
                    self._close(device, device.windows.popleft())
            closed_until, first_at = self._accounted(self._replicas())
            everything = np.ones(len(self._works), np.bool_)
            works = self._works.works
            whole = (closed_until >= works["done_at"]) & (first_at <= works["sent_at"])
            self._leave(everything, whole=whole, chunks_before=math.inf)
            return self._take_final()

    def take_postings(self) -> Mapping[Posting, Microjoules]:
        """µJ posted since the last call: together what the counters have gained meanwhile. To be called often."""
        with self._lock:
            return self._books.take_postings()

    def prices(self) -> Mapping[str, EnergyPrice]:
        """What tokens cost lately, by engine; those of which nothing is known are left out."""
        return self._prices

    def snapshot(self) -> EnergyNow:
        """A consistent copy."""
        with self._lock:
            answering = self.readings.answering()
            return EnergyNow(
                devices=_copy(self._books.devices),
                accounts=_copy(self._books.accounts),
                tenants=_copy(self._books.tenants),
                tenants_idle=_copy(self._books.tenants_idle),
                saved=self._savings.totals(),
                prices={self._engines[engine]: price for engine, price in self._prices.items()},
                residuals={device: energy for device, energy in self._residuals.items() if device in answering},
                silent=frozenset(self.readings.devices) - answering,
                meters=self.readings.health(),
                method=self.attribution.method,
                confidence=self.attribution.confidence,
                closed_until=self._closed_until(),
            )

    def pending_requests(self) -> int:
        """Requests heard of whose energy is not final."""
        with self._lock:
            return len(self._works)

    def closed_until_age(self) -> Seconds | None:
        """How long ago the last moment was up to which every device is accounted; None: there is no device."""
        with self._lock:
            until = self._closed_until()
            return None if until is None else Seconds(self._clock.monotonic() - until)

    def close(self) -> None:
        """Close the meters."""
        self.readings.close()

    @property
    def _devices(self) -> list[Device]:
        return list(self.readings.devices.values())

    def _closed_until(self) -> Seconds | None:
        return min((device.closed_until for device in self._devices), default=None)

    def _can_close(self, window: OpenWindow, now: Seconds) -> bool:
        """Nothing that overlapped it is still running, or the hold is over: then what is known counts."""
        if now >= window.end + self._hold_s:
            return True
        if not self._presence.all_reported_since(window.end) or self._works.running_before(window.end):
            return False
        return self._presence.in_flight() <= self._works.running()

    def _close(self, device: Device, opened: OpenWindow) -> None:
        window, rows = describe(device, opened, self._works, self._presence)
        device.closed_until = opened.end
        if opened.energy is None:
            self._tab.spoil(rows)
            return
        if window.end - window.start > _LONGEST_WINDOW:
            self._tab.spoil(rows)
            self._books.post(window, Share(account=Account.UNATTRIBUTED, engine=None, energy=window.energy), None)
        else:
            shares = self.attribution.attribute(window)
            assert shares.total == window.energy, "attribution lost or made energy"
            self._tab.pay(rows, shares, window.scope)
            self._price_book.add(window, shares)
            self._residuals[device.name] = shares.residual
            self._post(window, shares, rows)
        self._books.close(window)

    def _post(self, window: Window, shares: Shares, rows: Integers) -> None:
        for payer, (prefill, decode) in self._works.sum_by_payer(rows, shares.prefill, shares.decode):
            phases = {Phase.PREFILL: prefill, Phase.DECODE: decode}
            self._books.post_requests(window, self._engines[payer[0]], payer[4], payer[5], phases)
        for share in shares.others:
            self._books.post(window, share, self._engines[share.engine] if share.engine is not None else None)

    def _settle(self, now: Seconds, replicas: Sequence[Replica]) -> None:
        """Forget the requests whose windows are all closed, and those that have waited too long."""
        works = self._works.works
        closed_until, first_at = self._accounted(replicas)
        done = closed_until > works["done_at"]  # never of one that runs: its end is NaN
        given_up = now > works["done_at"] + self._hold_s + _FORGET_AFTER
        open_since = min((device.closed_until for device in self._devices), default=now)
        keep_from = max(open_since, now - self._hold_s - _FORGET_AFTER)
        self._leave(done | given_up, whole=done & (first_at <= works["sent_at"]), chunks_before=keep_from)
        self._presence.forget(keep_from)

    def _leave(self, which: Flags, *, whole: Flags, chunks_before: float) -> None:
        self._final += self._tab.final(which, whole)
        del self._final[:-MAX_REQUESTS]
        self._works.forget(which, chunks_before)

    def _take_final(self) -> list[RequestEnergy]:
        final, self._final = self._final, []
        return final

    def _accounted(self, replicas: Sequence[Replica]) -> tuple[Floats, Floats]:
        """Until when, and since when, all devices of each request's engine are accounted."""
        payers, devices = self._works.payers(), self._devices
        devices_of = {replica.name: [device for device in devices if is_on(replica, device)] for replica in replicas}
        # An engine that has just ended uses none any more.
        used = [devices_of.get(payer[0]) or devices for payer in payers]
        closed_until = [min((device.closed_until for device in one), default=math.inf) for one in used]
        first_at = [max((device.first_at for device in one), default=-math.inf) for one in used]
        of_each = self._works.works["payer"]
        return np.array(closed_until, np.float64)[of_each], np.array(first_at, np.float64)[of_each]

    def _forget_adapter(self, name: str) -> None:
        with self._lock:
            self._books.forget_adapter(name)

    def _forget_tenant(self, name: str) -> None:
        with self._lock:
            self._books.forget_tenant(name)


def _copy(amounts: Mapping[_Key, int]) -> dict[_Key, Microjoules]:
    return {key: Microjoules(amount) for key, amount in amounts.items()}
