"""The energy accounts: integers that only grow, and always add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from server.accounts import Account, EnergyPrice, Phase, Posting, RequestEnergy
from server.energy.attribution import Share, Window
from server.energy.idle import IdleBearers
from server.units import Microjoules, Seconds
from server.wire import NO_ADAPTER

__all__ = ["Books", "EnergyNow", "EngineLabels", "NameCap", "NameCaps", "RequestEnergy"]

_OTHER: Final = "other"
_ADAPTER: Final = 6
"""Where the adapter stands in an account's key."""

EngineLabels = tuple[str, str, str, str]
"""engine, model, variant, precision"""

_NO_ENGINE: Final[EngineLabels] = (NO_ADAPTER,) * 4


class NameCap(Protocol):
    """Bounds the names that stand on metrics."""

    def __call__(self, name: str) -> str:
        """`name`, or `other`."""

    def on_evict(self, fold: Callable[[str], None]) -> None:
        """`fold(name)` is called when `name` becomes `other`."""


class NameCaps(Protocol):
    """The caps that energy shares with the other metrics."""

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Held by whoever calls a cap, which may call everybody who listens; reentrant."""

    @property
    def adapters(self) -> NameCap: ...

    @property
    def tenants(self) -> NameCap: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyNow:
    """A copy of the accounts. For each device, its accounts add up to it, exactly."""

    devices: Mapping[tuple[str, str], Microjoules]
    """By (device, scope), up to the last closed window."""
    accounts: Mapping[tuple[str, ...], Microjoules]
    """By (device, scope, engine, model, variant, precision, adapter, account, phase)."""
    tenants: Mapping[tuple[str, ...], Microjoules]
    """By (tenant, scope): the active account."""
    tenants_idle: Mapping[tuple[str, ...], Microjoules]
    """By (tenant, scope): what `energy.idle` lays on them of the idle account."""
    saved: Mapping[EngineLabels, Microjoules]
    """By engine: what its cancelled requests did not use, at the prices of the moment."""
    prices: Mapping[EngineLabels, EnergyPrice]
    residuals: Mapping[str, int]
    """By device whose meter is up: µJ by which its last window was above (or below) what the method expected."""
    meters: Mapping[str, tuple[bool, Seconds | None]]
    """By meter: did the last reading succeed, and the age of the last good one (None: there was none)."""
    method: str
    confidence: float
    silent: frozenset[str] = frozenset()
    """Devices that could not be read the last time: nobody knows what they use now."""
    closed_until: Seconds | None
    """Monotonic time up to which every device is accounted; None: nothing is."""


class Books:
    """Posts the shares of closed windows."""

    def __init__(self, caps: NameCaps, idle: IdleBearers) -> None:
        self._caps = caps
        self._idle = idle
        self.devices: Counter[tuple[str, str]] = Counter()
        self.accounts: Counter[tuple[str, ...]] = Counter()
        self.tenants: Counter[tuple[str, ...]] = Counter()
        self.tenants_idle: Counter[tuple[str, ...]] = Counter()
        self._postings: Counter[Posting] = Counter()

    def post(self, window: Window, share: Share, engine: EngineLabels | None) -> None:
        """Enter a share of a window that no request pays. After those that requests pay."""
        labels = (*(engine or _NO_ENGINE), NO_ADAPTER, NO_ADAPTER)
        self._post(Posting(window.device, window.scope, *labels, share.account, Phase.NONE), share.energy)
        if share.account is Account.IDLE:
            for tenant, energy in self._idle.bearers(window.device, window.end, share.energy).items():
                self.tenants_idle[self._caps.tenants(tenant), window.scope] += energy

    def post_requests(
        self, window: Window, engine: EngineLabels, adapter: str, tenant: str, energy: Mapping[Phase, int]
    ) -> None:
        """Enter what requests of one tenant with one adapter pay for a window, by phase."""
        for phase, amount in energy.items():
            if amount:
                labels = (*engine, adapter, tenant)
                self._post(Posting(window.device, window.scope, *labels, Account.ACTIVE, phase), amount)
        total = Microjoules(sum(energy.values()))
        self.tenants[self._caps.tenants(tenant), window.scope] += total
        self._idle.used(window.device, window.end, tenant, total)

    def _post(self, posting: Posting, energy: int) -> None:
        *where, adapter, _tenant, account, phase = posting
        self.accounts[*where, self._caps.adapters(adapter), account.value, phase.value] += energy
        self._postings[posting] += energy

    def close(self, window: Window) -> None:
        """All shares of the window are posted: the device has used that much."""
        self.devices[window.device, window.scope] += window.energy

    def take_postings(self) -> Mapping[Posting, Microjoules]:
        """What was posted since the last call, under the names as they came."""
        postings, self._postings = self._postings, Counter()
        return {posting: Microjoules(energy) for posting, energy in postings.items()}

    def forget_adapter(self, name: str) -> None:
        _fold(self.accounts, _ADAPTER, name)

    def forget_tenant(self, name: str) -> None:
        _fold(self.tenants, 0, name)
        _fold(self.tenants_idle, 0, name)


def _fold(series: MutableMapping[tuple[str, ...], int], position: int, name: str) -> None:
    for key in [key for key in series if key[position] == name]:
        target = (*key[:position], _OTHER, *key[position + 1 :])
        series[target] = series.get(target, 0) + series.pop(key)
