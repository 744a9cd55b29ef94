"""Sums of usage and energy over a period, by whatever labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Select, Table, case, func, select

from server.accounts import Account, Phase
from server.ledger.group import TOKENS, Group
from server.ledger.period import Period
from server.ledger.tables import (
    ENERGY_DAYS,
    ENERGY_HOURS,
    ENERGY_SUMS,
    USAGE_DAYS,
    USAGE_HOURS,
    USAGE_SUMS,
)
from server.wire import Outcome

__all__ = ["sums"]


def sums(connection: Connection, by: Sequence[str], period: Period) -> list[Group]:
    """Over a period of whole hours, the group with the most active energy first."""
    groups: dict[tuple[str, ...], Group] = {}

    def group(values: Sequence[str]) -> Group:
        key = tuple(values)
        return groups.setdefault(key, Group(labels=dict(zip(by, key, strict=True))))

    for table, part in _parts(period, USAGE_HOURS, USAGE_DAYS):
        for row in connection.execute(_usage(table, by, part)):
            _add_usage(group(row[: len(by)]), *row[len(by) :])
    for table, part in _parts(period, ENERGY_HOURS, ENERGY_DAYS):
        for row in connection.execute(_energy(table, by, part)):
            _add_energy(group(row[: len(by)]), *row[len(by) :])
    most = Account.ACTIVE.value
    return sorted(groups.values(), key=lambda one: (-one.energy[most], -one.requests, tuple(one.labels.values())))


def _parts(period: Period, hours: Table, days: Table) -> Iterator[tuple[Table, Period]]:
    edges, middle = period.parts()
    for edge in edges:
        yield hours, edge
    if middle is not None:
        yield days, middle


def _usage(table: Table, by: Sequence[str], period: Period) -> Select[Any]:
    labels = [table.c[name] for name in by]
    ok = func.sum(case((table.c.outcome == Outcome.OK.value, table.c.requests), else_=0))
    summed = [func.sum(table.c[name]) for name in USAGE_SUMS]
    return _within(select(*labels, ok, *summed), table, period).group_by(*labels)


def _energy(table: Table, by: Sequence[str], period: Period) -> Select[Any]:
    labels = [table.c[name] for name in (*by, "account", "phase", "scope", "currency")]
    summed = [func.sum(table.c[name]) for name in ENERGY_SUMS]
    return _within(select(*labels, *summed), table, period).group_by(*labels)


def _within(query: Select[Any], table: Table, period: Period) -> Select[Any]:
    return query.where(table.c.start >= int(period.start), table.c.start < int(period.end))


def _add_usage(group: Group, ok: int, requests: int, *tokens: int | None) -> None:
    group.ok += int(ok)
    group.requests += int(requests)
    group.tokens.update({kind: int(count) for kind, count in zip(TOKENS, tokens, strict=True) if count is not None})


def _add_energy(group: Group, *row: Any) -> None:
    account, phase, scope, currency, energy, grams, grams_of, cost, cost_of = row
    # PostgreSQL's sums of integers are decimals.
    group.energy[account] += int(energy)
    if phase != Phase.NONE:
        group.energy[phase] += int(energy)
    group.scopes.add(scope)
    if grams is not None:
        group.grams = (group.grams or 0.0) + grams
        group.grams_of += int(grams_of)
    if cost is not None:
        group.costs[currency] = group.costs.get(currency, 0.0) + cost
        group.cost_of += int(cost_of)
