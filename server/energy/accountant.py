"""Reads the meters, closes windows, and knows who used how many joules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

import numpy as np

from server.clock import Clock
from server.config import EnergySettings
from server.energy.attribution import ATTRIBUTIONS, Account, EngineUse, Share, Shares, Window
from server.energy.attribution.token_share import TokenShare
from server.energy.books import Books, EnergyNow, NameCaps, RequestEnergy
from server.energy.devices import CpuTimes, Device, OpenWindow, is_on, is_up
from server.energy.foreign import ForeignTokens
from server.energy.meter import EnergyMeter, Reading
from server.energy.presence import Presence
from server.energy.processes import ProcessTable
from server.energy.work import UNKNOWN, Floats, Integers, Payer, WorkBook
from server.errors import MeterError
from server.fleet import Replica
from server.units import Microjoules, Seconds
from server.wire import Batch, Hello

__all__ = ["EnergyAccountant"]

_LONGEST_WINDOW: Final = Seconds(60.0)
"""After a longer silence of a meter, nobody can say whose the joules were."""
_FORGET_AFTER: Final = Seconds(60.0)
"""Beyond the hold, requests wait this long for windows of a meter that is down."""
_MAX_ENERGIES: Final = 10_000


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
        self._meters = list(meters)
        self._replicas = replicas
        self._clock = clock
        self._hold_s = settings.hold_s
        self._processes = processes or ProcessTable()
        self._attribution = ATTRIBUTIONS[TokenShare.method]()
        self._lock = caps.lock
        self._works = WorkBook()
        self._books = Books(caps)
        self._devices: dict[str, Device] = {}
        self._up: dict[str, bool] = {}
        self._read_at: dict[str, Seconds] = {}
        self._presence = Presence()
        self._energies: dict[str, Microjoules] = {}
        caps.adapters.on_evict(self._forget_adapter)
        caps.tenants.on_evict(self._forget_tenant)

    def take(self, batch: Batch, worker: Hello) -> None:
        """Learn who ran when. Each batch must come once: give only those that `Traffic.take` accepted."""
        with self._lock:
            accounted_until = max((device.closed_until for device in self._devices.values()), default=-math.inf)
            self._works.take(batch, worker, accounted_until=accounted_until)
            self._presence.take(batch, worker)

    def left(self, worker: Hello) -> None:
        """The worker's connection is gone."""
        with self._lock:
            self._presence.left(worker)
            self._works.left(worker)

    def tick(self) -> list[RequestEnergy]:
        """Read the meters, close what can be closed; returns the completed requests whose energy is now final.

        Never raises for a meter: it is shown as down.
        """
        with self._lock:
            replicas = self._replicas()
            for meter in self._meters:
                try:
                    self._take_reading(meter.read(), replicas)
                except MeterError:
                    self._up[meter.kind] = False
                else:
                    self._up[meter.kind] = True
                    self._read_at[meter.kind] = self._clock.monotonic()
            now = self._clock.monotonic()
            self._works.give_up_silent(now)
            for device in self._devices.values():
                while device.windows and self._can_close(device.windows[0], now):
                    self._close(device, device.windows.popleft())
            return self._settle(now, replicas)

    def request_energy(self, request_id: str) -> Microjoules | None:
        """The final energy of a request, of the last 10,000; None: not known, or not yet."""
        with self._lock:
            return self._energies.get(request_id)

    def snapshot(self) -> EnergyNow:
        """A consistent copy."""
        with self._lock:
            clock = self._clock.monotonic()
            ages = {kind: Seconds(clock - at) for kind, at in self._read_at.items()}
            closed = [device.closed_until for device in self._devices.values()]
            return EnergyNow(
                devices={key: Microjoules(amount) for key, amount in self._books.devices.items()},
                accounts={key: Microjoules(amount) for key, amount in self._books.accounts.items()},
                tenants={key: Microjoules(amount) for key, amount in self._books.tenants.items()},
                meters={kind: (up, ages.get(kind)) for kind, up in self._up.items()},
                method=self._attribution.method,
                confidence=self._attribution.confidence,
                closed_until=min(closed) if closed else None,
            )

    def pending_requests(self) -> int:
        """Requests heard of whose energy is not final."""
        with self._lock:
            return len(self._works)

    def closed_until_age(self) -> Seconds | None:
        """How long ago the last moment was up to which every device is accounted; None: there is no device."""
        until = self.snapshot().closed_until
        return None if until is None else Seconds(self._clock.monotonic() - until)

    def close(self) -> None:
        """Close the meters."""
        for meter in self._meters:
            meter.close()

    def _take_reading(self, reading: Reading, replicas: Sequence[Replica]) -> None:
        cpu: CpuTimes | None = None
        for entry in reading.devices:
            device = self._devices.get(entry.device)
            if device is not None and not device.is_due(reading.at):
                continue
            if entry.by_cpu_time and cpu is None:
                pids = [replica.pid for replica in replicas if replica.pid is not None]
                cpu = CpuTimes(busy_us=self._processes.busy_us(), trees_us=self._processes.trees_us(pids))
            if device is None:
                self._devices[entry.device] = Device(entry, reading.at, cpu, replicas)
            else:
                device.advance(entry, reading.at, cpu, replicas)

    def _can_close(self, window: OpenWindow, now: Seconds) -> bool:
        """Nothing that overlapped it is still running, or the hold is over: then what is known counts."""
        if now >= window.end + self._hold_s:
            return True
        if not self._presence.all_reported_since(window.end) or self._works.running_before(window.end):
            return False
        return self._presence.in_flight() <= self._works.running()

    def _close(self, device: Device, opened: OpenWindow) -> None:
        window, rows = self._describe(device, opened)
        shares = self._shares(window, rows)
        assert shares.total == window.energy, "attribution lost or made energy"
        engines = {
            replica.name: (replica.name, replica.model, replica.variant, replica.precision)
            for replica in opened.replicas
        }
        self._works.pay(rows, shares.requests)
        for payer, energy in self._works.sum_by_payer(rows, shares.requests):
            self._books.post_requests(window, engines[payer[0]], payer[4], payer[5], Microjoules(energy))
        for share in shares.others:
            self._books.post(window, share, engines[share.engine] if share.engine is not None else None)
        self._books.close(window)
        device.closed_until = opened.end

    def _describe(self, device: Device, opened: OpenWindow) -> tuple[Window, Integers]:
        """The window, and which rows of the work book its requests are."""
        places = {replica.name: place for place, replica in enumerate(opened.replicas)}
        rows, requests, output_of = self._works.in_window(opened.start, opened.end, places)
        busy = self._presence.engines_seen(opened.start, opened.end)
        window = Window(
            device=device.name,
            scope=device.scope,
            start=opened.start,
            end=opened.end,
            energy=opened.energy,
            baseline=opened.baseline,
            engines=[
                EngineUse(
                    engine=replica.name,
                    up=is_up(replica),
                    cpu_us=opened.cpu_us.get(replica.name, 0),
                    foreign_millitokens=device.foreign.setdefault(replica.name, ForeignTokens()).in_window(
                        replica.gauges.output_tokens_total if replica.gauges else None, ours
                    ),
                    busy=replica.name in busy,
                )
                for replica, ours in zip(opened.replicas, output_of.tolist(), strict=True)
            ],
            requests=requests,
            other_cpu_us=opened.other_cpu_us,
        )
        return window, rows

    def _shares(self, window: Window, rows: Integers) -> Shares:
        if window.end - window.start <= _LONGEST_WINDOW:
            return self._attribution.attribute(window)
        self._works.works["complete"][rows] = False
        everything = Share(account=Account.UNATTRIBUTED, engine=None, energy=window.energy)
        nothing = np.zeros(len(rows), np.int64)
        return Shares(prefill=nothing, decode=nothing, others=[everything], method="none", confidence=0.0)

    def _settle(self, now: Seconds, replicas: Sequence[Replica]) -> list[RequestEnergy]:
        """Forget the requests whose windows are all closed; returns the final energies."""
        devices = list(self._devices.values())
        works, payers = self._works.works, self._works.payers()
        closed_until, first_at = self._accounted(payers, replicas)
        done = closed_until[works["payer"]] > works["done_at"]  # never of one that runs: its end is NaN
        final = done & works["complete"] & (first_at[works["payer"]] <= works["sent_at"]) & (works["energy"] != UNKNOWN)
        ids, energies = self._works.ids(final), works["energy"][final].tolist()
        self._remember(ids, energies)
        told = [
            RequestEnergy(request_id, payers[payer][:5], energy)
            for request_id, payer, energy, completed in zip(
                ids, works["payer"][final].tolist(), energies, works["completed"][final].tolist(), strict=True
            )
            if completed
        ]
        given_up = now > works["done_at"] + self._hold_s + _FORGET_AFTER
        open_since = min((device.closed_until for device in devices), default=now)
        keep_from = max(open_since, now - self._hold_s - _FORGET_AFTER)
        self._works.forget(done | given_up, keep_from)
        self._presence.forget(keep_from)
        return told

    def _accounted(self, payers: Sequence[Payer], replicas: Sequence[Replica]) -> tuple[Floats, Floats]:
        """Until when, and since when, all devices of each payer's engine are accounted."""
        devices = list(self._devices.values())
        devices_of = {replica.name: [device for device in devices if is_on(replica, device)] for replica in replicas}
        # An engine that has just ended uses none any more.
        used = [devices_of.get(payer[0]) or devices for payer in payers]
        closed_until = [min((device.closed_until for device in one), default=math.inf) for one in used]
        first_at = [max((device.first_at for device in one), default=-math.inf) for one in used]
        return np.array(closed_until, np.float64), np.array(first_at, np.float64)

    def _remember(self, ids: Sequence[str], energies: Sequence[Microjoules]) -> None:
        self._energies.update(zip(ids, energies, strict=True))
        for request_id in list(islice(self._energies, max(0, len(self._energies) - _MAX_ENERGIES))):
            del self._energies[request_id]

    def _forget_adapter(self, name: str) -> None:
        with self._lock:
            self._books.forget_adapter(name)

    def _forget_tenant(self, name: str) -> None:
        with self._lock:
            self._books.forget_tenant(name)
