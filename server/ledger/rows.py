"""Records, energies and postings as rows, and the hours and days that they are summed into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from server.accounts import Posting, Rates, RequestEnergy
from server.ledger.period import DAY_S, HOUR_S
from server.ledger.tables import CONFIGURATION, ENERGY_SUMS, RECORDS, USAGE_SUMS
from server.units import Microjoules
from server.wire import NO_ADAPTER, RequestRecord

__all__ = [
    "Postings",
    "Row",
    "add_postings",
    "by_day",
    "clean",
    "energy_row",
    "posting_rows",
    "record_row",
    "usage_rows",
]

_MAX_TEXT: Final = 200
"""Clients choose a request's id and the model that they ask for."""
_MAX_TOKENS: Final = 2**40
"""No request has a trillion tokens: what an engine says beyond it is not known, and sums stay far from 2^63."""

Row = dict[str, Any]
"""By column."""
Postings = dict[tuple[int, str, Posting], list[Any]]
"""(hour, currency, posting) → values of `ENERGY_SUMS`."""

_USAGE_KEY: Final = (*CONFIGURATION, "tenant", "outcome")
_USAGE_PARTS: Final = itemgetter(
    *(list(RECORDS.columns.keys()).index(name) for name in ("ended", *_USAGE_KEY, *USAGE_SUMS[1:]))
)


def record_row(key: tuple[str, int, int], record: RequestRecord, *, epoch: float, lifetime: str) -> tuple[Any, ...]:
    """The values of `RECORDS`, in its order; `epoch` is the wall time at monotonic 0."""
    received, first, sent, done = record.received_at, record.first_token_at, record.sent_at, record.upstream_done_at
    return (
        *key,
        lifetime,
        clean(record.id),
        epoch + received,
        epoch + record.ended_at,
        record.tenant,
        record.endpoint,
        clean(record.requested_model) if record.requested_model else None,
        record.engine,
        record.model,
        record.variant,
        record.precision,
        record.adapter,
        record.outcome._value_,  # a plain string
        record.status,
        record.streamed,
        record.cancelled_when,
        record.retries,
        _tokens(record.prompt_tokens),
        _tokens(record.cached_tokens),
        _tokens(record.output_tokens),
        _tokens(record.tokens_spared),
        record.queue_s,
        None if first is None else first - received,
        record.ended_at - received,
        None if done is None or sent is None else done - sent,
    )


def energy_row(final: RequestEnergy, rates: Rates) -> tuple[Any, ...]:
    """The values of `ENERGIES`: what a request used, emitted and cost by the rates when that became known."""
    energy = final.energy
    cost = rates.cost(energy)
    return (
        *final.key,
        final.prefill,
        final.decode,
        final.whole,
        final.scope,
        final.method,
        final.confidence,
        rates.grams(energy),
        cost,
        None if cost is None else rates.currency,
    )


def usage_rows(rows: Iterable[tuple[Any, ...]], *, lifetime: str) -> list[Row]:
    """Of rows of `records`: what they add to `usage_hours`."""
    sums: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        ended, *key, prompt, cached, output, spared = _USAGE_PARTS(row)
        found = sums.setdefault((ended // HOUR_S, *key), [0, None, None, None, None])
        found[0] += 1
        for place, value in enumerate((prompt, cached, output, spared), 1):
            if value is not None:
                found[place] = (found[place] or 0) + value
    return [
        {
            "start": int(hour) * HOUR_S,
            "lifetime": lifetime,
            **{name: value or NO_ADAPTER for name, value in zip(_USAGE_KEY, key, strict=True)},
            **dict(zip(USAGE_SUMS, values, strict=True)),
        }
        for (hour, *key), values in sums.items()
    ]


def add_postings(sums: Postings, postings: Mapping[Posting, Microjoules], rates: Rates, *, at: float) -> None:
    """Add what was posted at the wall time `at`, while these rates held."""
    currency = NO_ADAPTER if rates.cost_per_joule is None else rates.currency
    hour = int(at // HOUR_S) * HOUR_S
    for posting, energy in postings.items():
        found = sums.setdefault((hour, currency, posting), [0, None, 0, None, 0])
        _add(found, energy, rates.grams(energy), rates.cost(energy))


def posting_rows(sums: Postings, *, lifetime: str) -> list[Row]:
    """What postings add to `energy_hours`."""
    return [
        {
            "start": hour,
            "lifetime": lifetime,
            "currency": currency,
            **posting._asdict(),
            "account": posting.account.value,
            "phase": posting.phase.value,
            **dict(zip(ENERGY_SUMS, values, strict=True)),
        }
        for (hour, currency, posting), values in sums.items()
    ]


def by_day(hours: Iterable[Row], summed: Sequence[str]) -> list[Row]:
    """Rows of hours as rows of days; `summed` are the columns that are no key."""
    days: dict[tuple[Any, ...], Row] = {}
    for hour in hours:
        day = {**hour, "start": hour["start"] // DAY_S * DAY_S}
        key = tuple(value for name, value in day.items() if name not in summed)
        found = days.setdefault(key, day)
        if found is not day:
            found.update({name: _plus(found[name], day[name]) for name in summed})
    return list(days.values())


def clean(text: str) -> str:
    """As what a client chose is stored: bounded, and without NUL, which PostgreSQL does not take."""
    return text[:_MAX_TEXT].replace("\0", "\ufffd")


def _add(found: list[Any], energy: Microjoules, grams: float | None, cost: float | None) -> None:
    found[0] += energy
    if grams is not None:
        found[1], found[2] = (found[1] or 0.0) + grams, found[2] + energy
    if cost is not None:
        found[3], found[4] = (found[3] or 0.0) + cost, found[4] + energy


def _plus(one: Any, other: Any) -> Any:
    """None is unknown, and adds nothing."""
    if one is None or other is None:
        return other if one is None else one
    return one + other


def _tokens(count: int | None) -> int | None:
    return None if count is None or count > _MAX_TOKENS else count
