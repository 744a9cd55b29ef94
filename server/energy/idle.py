"""Who bears the idle joules: nobody, tenants by what they use, or tenants by what is reserved for them."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from typing import Final

import numpy as np

from server.config import EnergySettings
from server.energy.attribution.rounding import split
from server.units import Microjoules, Seconds

__all__ = ["IdleBearers"]

_HOUR: Final = Seconds(3600.0)
_STEP: Final = Seconds(60.0)
"""Active joules are forgotten by the minute."""
_WHOLE: Final = 1_000_000_000
"""Reserved shares are counted in billionths."""


class IdleBearers:
    """Lays a device's idle joules on tenants, as `energy.idle` says. They stay in the idle account as well.

    Spread, they go by the active joules of the last hour on the same device; while there were none, nobody bears them.
    """

    def __init__(self, settings: EnergySettings) -> None:
        self._reserved = {tenant: round(share * _WHOLE) for tenant, share in settings.reserved.items()}
        self._spread = settings.idle == "spread"
        self._lately: defaultdict[str, _Lately] = defaultdict(_Lately)

    def used(self, device: str, at: Seconds, tenant: str, energy: Microjoules) -> None:
        """A tenant's requests have used that much, in a window that ended at `at`. Times do not fall."""
        if self._spread:
            self._lately[device].add(at, tenant, energy)

    def bearers(self, device: str, at: Seconds, idle: Microjoules) -> Mapping[str, int]:
        """What each tenant bears of a window's idle µJ; together at most all of it."""
        weights = self._lately[device].sums(at) if self._spread else self._reserved
        apart = 0 if self._spread else max(0, _WHOLE - sum(self._reserved.values()))
        if not any(weights.values()):
            return {}
        *parts, _apart = split(idle, np.array([*weights.values(), apart], np.int64)).tolist()
        return dict(zip(weights, parts, strict=True))


class _Lately:
    """Active µJ of the last hour, by tenant."""

    def __init__(self) -> None:
        self._steps: deque[tuple[Seconds, Counter[str]]] = deque()
        """When each began, and what was used in it."""
        self._sums: Counter[str] = Counter()

    def add(self, at: Seconds, tenant: str, energy: Microjoules) -> None:
        if not self._steps or at >= self._steps[-1][0] + _STEP:
            self._steps.append((at, Counter()))
        self._steps[-1][1][tenant] += energy
        self._sums[tenant] += energy

    def sums(self, at: Seconds) -> Mapping[str, int]:
        while self._steps and self._steps[0][0] <= at - _HOUR:
            self._sums.subtract(self._steps.popleft()[1])
            self._sums = +self._sums
        return self._sums
