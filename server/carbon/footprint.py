"""Counts grams and money: of joules as they are posted, of devices as time passes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

from server.accounts import Account, Posting, Rates
from server.carbon.rates import embodied_grams_per_second, price_per_second
from server.config.carbon import CarbonSettings, CostSettings
from server.telemetry.labels import NONE, LabelCaps, refold
from server.telemetry.sources import Sample
from server.units import JOULES_PER_MICROJOULE, Microjoules, Seconds

__all__ = ["Footprint"]

_ADAPTER: Final = 4
"""Where the adapter stands in an account's key."""
_TENANT: Final = 0
_EVERY_DEVICE: Final = "*"
_DEVICE_ACCOUNT: Final = "device"
"""On `wattgate_cost_total`: paid by the hour, and not for joules."""

Labels = tuple[str, ...]
Engine = tuple[str, str, str, str]
"""(engine, model, variant, precision)"""

_NO_ENGINE: Final[Engine] = (NONE,) * 4


class Footprint:
    """Sums that only grow. Written on the event loop, read from any thread."""

    def __init__(self, caps: LabelCaps, *, carbon: CarbonSettings, cost: CostSettings) -> None:
        self._caps = caps
        self._currency = cost.currency
        self._embodied = {one.device: embodied_grams_per_second(one) for one in carbon.devices}
        self._prices = {one.device: price_per_second(one) for one in cost.devices}
        self._grams: defaultdict[Labels, float] = defaultdict(float)
        self._tenant_grams: defaultdict[Labels, float] = defaultdict(float)
        self._embodied_grams: defaultdict[Labels, float] = defaultdict(float)
        self._cost: defaultdict[Labels, float] = defaultdict(float)
        self._tenant_cost: defaultdict[Labels, float] = defaultdict(float)
        self._unknown = 0
        """µJ without an intensity."""
        self._metered = False
        self._engines: dict[str, frozenset[Engine]] = {}
        """On each device, as of its last postings."""
        self._until: Seconds | None = None
        """The monotonic time up to which devices are counted; None: they are not yet."""
        for series in (self._grams, self._cost):
            caps.adapters.on_evict(partial(refold, series, _ADAPTER))
        for series in (self._tenant_grams, self._tenant_cost):
            caps.tenants.on_evict(partial(refold, series, _TENANT))

    def post(self, postings: Mapping[Posting, Microjoules], rates: Rates, at: Seconds) -> None:
        """Count what was posted at the rates of this moment, and the devices' time up to it (`at` is monotonic).

        Call it at every tick, also with nothing: time costs, too.
        """
        with self._caps.lock:
            for posting, energy in postings.items():
                self._post(posting, energy, rates)
            self._see(postings)
            self._pass_time(at)

    def by_configuration(self) -> dict[Labels, float] | None:
        """Grams of requests, by (engine, model, variant, precision, adapter); None: no intensity was known yet."""
        with self._caps.lock:
            active = {labels[:-1]: grams for labels, grams in self._grams.items() if labels[-1] == Account.ACTIVE}
            return active if self._grams else None

    def samples(self) -> Iterator[Sample]:
        """For the exposition; on any thread."""
        with self._caps.lock:
            series = {
                "wattgate_co2e_grams_total": dict(self._grams),
                "wattgate_tenant_co2e_grams_total": dict(self._tenant_grams),
                "wattgate_embodied_co2e_grams_total": dict(self._embodied_grams),
                "wattgate_cost_total": {(*labels, self._currency): total for labels, total in self._cost.items()},
                "wattgate_tenant_cost_total": {
                    (*labels, self._currency): total for labels, total in self._tenant_cost.items()
                },
            }
            unknown = self._unknown * JOULES_PER_MICROJOULE if self._metered else None
        for name, sums in series.items():
            for labels, value in sorted(sums.items()):
                yield name, labels, value
        yield "wattgate_carbon_unknown_energy_joules_total", (), unknown

    def _post(self, posting: Posting, energy: Microjoules, rates: Rates) -> None:
        self._metered = True
        labels = (*_engine(posting), self._caps.adapters(posting.adapter), posting.account.value)
        active = posting.account is Account.ACTIVE
        tenant = (self._caps.tenants(posting.tenant),) if active else None
        grams, cost = rates.grams(energy), rates.cost(energy)
        if grams is None:
            self._unknown += energy
        else:
            self._grams[labels] += grams
            if tenant:
                self._tenant_grams[tenant] += grams
        if cost is not None:
            self._cost[labels] += cost
            if tenant:
                self._tenant_cost[tenant] += cost

    def _see(self, postings: Mapping[Posting, Microjoules]) -> None:
        """Who is on which device."""
        if not self._embodied and not self._prices:
            return
        seen: defaultdict[str, set[Engine]] = defaultdict(set)
        for posting in postings:
            seen[posting.device].add(_engine(posting))
        for device, engines in seen.items():
            self._engines[device] = frozenset(engines - {_NO_ENGINE}) or frozenset({_NO_ENGINE})

    def _pass_time(self, at: Seconds) -> None:
        passed = 0.0 if self._until is None else max(0.0, at - self._until)
        self._until = Seconds(at if self._until is None else max(at, self._until))
        for device, grams in self._each(self._embodied):
            for engine in (engines := self._on(device)):
                self._embodied_grams[device, *engine] += passed * grams / len(engines)
        for device, price in self._each(self._prices):
            for engine in (engines := self._on(device)):
                self._cost[*engine, NONE, _DEVICE_ACCOUNT] += passed * price / len(engines)

    def _each(self, by_device: Mapping[str, float]) -> list[tuple[str, float]]:
        """Those with a name of their own, and all others that were ever metered if there is an entry for every one."""
        named = {device: rate for device, rate in by_device.items() if device != _EVERY_DEVICE}
        every = by_device.get(_EVERY_DEVICE)
        if every is not None:
            named = dict.fromkeys(self._engines, every) | named
        return list(named.items())

    def _on(self, device: str) -> frozenset[Engine]:
        return self._engines.get(device, frozenset({_NO_ENGINE}))


def _engine(posting: Posting) -> Engine:
    return posting.engine, posting.model, posting.variant, posting.precision
