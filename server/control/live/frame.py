"""One second of the gateway: rates of what was served, watts of what was accounted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.accounts import Account
from server.telemetry.traffic import TrafficTotals
from server.units import MICROJOULES_PER_JOULE, Microjoules, Seconds

__all__ = ["Power", "Served", "Totals", "power_between", "served_between", "totals_of"]

_ACCOUNT = 7
"""Where the account stands in the key of an energy account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Everything counted up to a moment."""

    at: Seconds
    """Monotonic."""
    requests: int
    errors: int
    output_tokens: int
    accounts: Mapping[str, int]
    """µJ by account."""
    meter: int
    """µJ of all devices."""
    accounted_until: Seconds | None
    """Monotonic time up to which joules are accounted; None: there is no meter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What was served between two moments."""

    at: Seconds
    """Wall clock, of the later one."""
    requests_per_s: float
    errors_per_s: float
    output_tokens_per_s: float
    in_flight: int
    queued: int | None

    def to_json(self) -> dict[str, Any]:
        return {
            "at": round(self.at, 3),
            "requests_per_s": round(self.requests_per_s, 3),
            "errors_per_s": round(self.errors_per_s, 3),
            "output_tokens_per_s": round(self.output_tokens_per_s, 2),
            "in_flight": self.in_flight,
            "queued": self.queued,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """Where the joules went between two moments up to which all is accounted."""

    at: Seconds
    """Wall clock, of the later one."""
    watts: Mapping[str, float]
    """By account."""
    meter_watts: float

    def to_json(self) -> dict[str, Any]:
        watts = {account: round(value, 3) for account, value in self.watts.items()}
        return {"at": round(self.at, 3), "watts": watts, "meter_watts": round(self.meter_watts, 3)}


def totals_of(
    at: Seconds,
    traffic: TrafficTotals,
    *,
    failed: frozenset[str],
    accounts: Mapping[tuple[str, ...], Microjoules],
    devices: Mapping[tuple[str, str], Microjoules],
    accounted_until: Seconds | None,
) -> Totals:
    """`failed` are the outcomes that are the service's fault."""
    by_account: Counter[str] = Counter({account.value: 0 for account in Account})
    for key, amount in accounts.items():
        by_account[key[_ACCOUNT]] += amount
    return Totals(
        at=at,
        requests=sum(traffic.outcomes.values()),
        errors=sum(count for outcome, count in traffic.outcomes.items() if outcome in failed),
        output_tokens=traffic.output_tokens,
        accounts=dict(by_account),
        meter=sum(devices.values()),
        accounted_until=accounted_until,
    )


def served_between(before: Totals, after: Totals, traffic: TrafficTotals, wall: Seconds) -> Served:
    """Rates over the time between; `after` is later."""
    seconds = after.at - before.at
    return Served(
        at=wall,
        requests_per_s=(after.requests - before.requests) / seconds,
        errors_per_s=(after.errors - before.errors) / seconds,
        output_tokens_per_s=(after.output_tokens - before.output_tokens) / seconds,
        in_flight=sum(traffic.workers.in_flight.values()),
        queued=traffic.workers.queued,
    )


def power_between(before: Totals, after: Totals, wall: Seconds) -> Power | None:
    """None while nothing more is accounted: unknown, and not 0. `wall` belongs to the moment `after.at`."""
    if before.accounted_until is None or after.accounted_until is None:
        return None
    seconds = after.accounted_until - before.accounted_until
    if seconds <= 0:
        return None
    joules = MICROJOULES_PER_JOULE * seconds
    watts = {account: (amount - before.accounts.get(account, 0)) / joules for account, amount in after.accounts.items()}
    return Power(
        at=Seconds(wall - (after.at - after.accounted_until)),
        watts=watts,
        meter_watts=(after.meter - before.meter) / joules,
    )
