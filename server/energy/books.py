"""The energy accounts: integers that only grow, and always add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from server.energy.attribution import Account, Share, Window
from server.units import Microjoules, Seconds
from server.wire import NO_ADAPTER

__all__ = ["Books", "EnergyNow", "NameCap", "NameCaps", "RequestEnergy"]

_OTHER: Final = "other"
_ADAPTER: Final = 6
"""Where the adapter stands in an account's key."""

EngineLabels = tuple[str, str, str, str]

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
    """By (device, scope, engine, model, variant, precision, adapter, account)."""
    tenants: Mapping[tuple[str, ...], Microjoules]
    """By (tenant, scope): the active account."""
    meters: Mapping[str, tuple[bool, Seconds | None]]
    """By meter: did the last reading succeed, and the age of the last good one (None: there was none)."""
    method: str
    confidence: float
    closed_until: Seconds | None
    """Monotonic time up to which every device is accounted; None: nothing is."""


class RequestEnergy(NamedTuple):
    """What a completed request has used, over all its devices: final."""

    id: str
    labels: tuple[str, str, str, str, str]
    """engine, model, variant, precision, adapter"""
    energy: Microjoules


class Books:
    """Posts the shares of closed windows."""

    def __init__(self, caps: NameCaps) -> None:
        self._caps = caps
        self.devices: Counter[tuple[str, str]] = Counter()
        self.accounts: Counter[tuple[str, ...]] = Counter()
        self.tenants: Counter[tuple[str, ...]] = Counter()

    def post(self, window: Window, share: Share, engine: EngineLabels | None) -> None:
        """Enter a share of a window that no request pays."""
        self._post(window, engine or _NO_ENGINE, NO_ADAPTER, share.account, share.energy)

    def post_requests(
        self, window: Window, engine: EngineLabels, adapter: str, tenant: str, energy: Microjoules
    ) -> None:
        """Enter what requests pay for a window."""
        self._post(window, engine, adapter, Account.ACTIVE, energy)
        self.tenants[self._caps.tenants(tenant), window.scope] += energy

    def _post(self, window: Window, engine: EngineLabels, adapter: str, account: Account, energy: Microjoules) -> None:
        labels = (*engine, self._caps.adapters(adapter))
        self.accounts[window.device, window.scope, *labels, account.value] += energy

    def close(self, window: Window) -> None:
        """All shares of the window are posted: the device has used that much."""
        self.devices[window.device, window.scope] += window.energy

    def forget_adapter(self, name: str) -> None:
        _fold(self.accounts, _ADAPTER, name)

    def forget_tenant(self, name: str) -> None:
        _fold(self.tenants, 0, name)


def _fold(series: MutableMapping[tuple[str, ...], int], position: int, name: str) -> None:
    for key in [key for key in series if key[position] == name]:
        target = (*key[:position], _OTHER, *key[position + 1 :])
        series[target] = series.get(target, 0) + series.pop(key)
