"""How sums of energy are shown: as JSON, and flat for CSV and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from server.accounts import Account
from server.ledger.group import ACCOUNTS, TOKENS, Group
from server.ledger.period import Period, iso
from server.units import MICROJOULES_PER_JOULE

__all__ = ["energy_columns", "energy_flat", "energy_report"]


def energy_report(by: Sequence[str], period: Period, groups: Sequence[Group]) -> dict[str, Any]:
    """The answer of `GET /api/energy?by=…`; unknown is null."""
    total = Group(labels={})
    for group in groups:
        total.add(group)
    return {
        "by": list(by),
        "from": iso(period.start),
        "to": iso(period.end),
        "rows": [_shown(group) for group in groups],
        "total": _shown(total),
    }


def energy_columns(report: Mapping[str, Any]) -> list[str]:
    """Of a report that is laid out flat: a cost column for each currency."""
    joules = [f"{account}_joules" for account in ACCOUNTS]
    grams = ["co2e_grams", "co2e_coverage"]
    costs = [f"cost_{currency}" for currency in report["total"]["costs"]]
    return [*report["by"], "requests", "ok", *TOKENS, *joules, "joules_per_output_token", "scopes", *grams, *costs]


def energy_flat(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Iterable[dict[str, Any]]:
    """Rows of a report, with those columns."""
    for row in rows:
        flat = {
            **row,
            **{f"{account}_joules": joules for account, joules in row["joules"].items()},
            **{f"cost_{currency}": cost for currency, cost in row["costs"].items()},
            "scopes": " ".join(row["scopes"]),
        }
        yield {name: flat.get(name) for name in columns}


def _shown(group: Group) -> dict[str, Any]:
    active, output = group.energy.get(Account.ACTIVE.value), group.tokens.get("output_tokens")
    booked = group.booked
    return {
        **group.labels,
        "requests": group.requests,
        "ok": group.ok,
        **{kind: group.tokens.get(kind) for kind in TOKENS},
        "joules": {account: _joules(group.energy.get(account)) for account in ACCOUNTS},
        "microjoules": {account: group.energy.get(account) for account in ACCOUNTS},
        "joules_per_output_token": active / MICROJOULES_PER_JOULE / output if active is not None and output else None,
        "scopes": sorted(group.scopes),
        "co2e_grams": group.grams,
        "co2e_coverage": group.grams_of / booked if booked else None,
        "costs": dict(sorted(group.costs.items())),
        "cost_coverage": group.cost_of / booked if booked else None,
    }


def _joules(microjoules: int | None) -> float | None:
    return None if microjoules is None else microjoules / MICROJOULES_PER_JOULE
