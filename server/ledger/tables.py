"""The ledger's tables, as they are after the newest migration.

Times are wall-clock seconds since the epoch, energy is integer microjoules, unknown is NULL. In the keys of the sums,
where NULL cannot stand, `none` says that a name does not apply, as on metrics.

A request's energy is known seconds after its record. It has a table of its own, so that a row is written once and never
again: rows that grow later would have to be moved.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, MetaData, Table, Text
from sqlalchemy.types import TypeEngine

from server.ledger.group import TOKENS

__all__ = [
    "CONFIGURATION",
    "ENERGIES",
    "ENERGY_DAYS",
    "ENERGY_HOURS",
    "ENERGY_SUMS",
    "LIFETIMES",
    "METADATA",
    "RECORDS",
    "RECORD_KEY",
    "USAGE_DAYS",
    "USAGE_HOURS",
    "USAGE_SUMS",
    "WORKERS",
]

RECORD_KEY: Final = ("boot", "seq", "place")
"""`server.accounts.RecordKey`."""
CONFIGURATION: Final = ("engine", "model", "variant", "precision", "adapter")

USAGE_SUMS: Final = ("requests", *TOKENS)
"""NULL: of none of the requests it was known."""
ENERGY_SUMS: Final = ("energy_uj", "grams", "grams_uj", "cost", "cost_uj")
"""`grams_uj`, `cost_uj`: the part of the energy whose grams and cost were known, to which these belong."""

METADATA: Final = MetaData()


def _columns(type_: type[TypeEngine[Any]], *names: str, nullable: bool = False) -> list[Column[Any]]:
    return [Column(name, type_, nullable=nullable) for name in names]


def _key(type_: type[TypeEngine[Any]], *names: str) -> list[Column[Any]]:
    return [Column(name, type_, primary_key=True, autoincrement=False, nullable=False) for name in names]


def _record_key() -> list[Column[Any]]:
    return [*_key(Text, "boot"), *_key(BigInteger, "seq"), *_key(Integer, "place")]


LIFETIMES: Final = Table(
    "lifetimes",
    METADATA,
    *_key(Text, "lifetime"),
    *_columns(Text, "version"),
    *_columns(Double, "started", "seen"),
    *_columns(Double, "stopped", nullable=True),
    *_columns(BigInteger, "posted"),
    comment="Of control planes. `posted`: the newest of its postings that is in the energy sums; each counts once.",
)

WORKERS: Final = Table(
    "workers",
    METADATA,
    *_key(Text, "boot"),
    *_columns(BigInteger, "seq"),
    *_columns(Double, "seen"),
    comment="Lives of gateway workers. `seq`: the newest of its batches that is in the ledger, with all before it.",
)

RECORDS: Final = Table(
    "records",
    METADATA,
    *_record_key(),
    *_columns(Text, "lifetime", "id"),
    *_columns(Double, "received", "ended"),
    *_columns(Text, "tenant", "endpoint"),
    *_columns(Text, "requested_model", *CONFIGURATION[:4], nullable=True),
    *_columns(Text, "adapter", "outcome"),
    *_columns(Integer, "status"),
    *_columns(Boolean, "streamed"),
    *_columns(Text, "cancelled_when", nullable=True),
    *_columns(Integer, "retries"),
    *_columns(BigInteger, *USAGE_SUMS[1:], nullable=True),
    *_columns(Double, "queue_s"),
    *_columns(Double, "time_to_first_token_s", nullable=True),
    *_columns(Double, "duration_s"),
    *_columns(Double, "upstream_s", nullable=True),
    Index("ix_records_id", "id"),
    Index("ix_records_ended", "ended"),
    sqlite_with_rowid=False,
)

ENERGIES: Final = Table(
    "energies",
    METADATA,
    *_record_key(),
    *_columns(BigInteger, "prefill_uj", "decode_uj"),
    *_columns(Boolean, "whole"),
    *_columns(Text, "scope", "method"),
    *_columns(Double, "confidence"),
    *_columns(Double, "grams", "cost", nullable=True),
    *_columns(Text, "currency", nullable=True),
    sqlite_with_rowid=False,
    comment="Of requests; final.",
)


def _usage(name: str) -> Table:
    return Table(
        name,
        METADATA,
        *_key(BigInteger, "start"),
        *_key(Text, "lifetime", *CONFIGURATION, "tenant", "outcome"),
        *_columns(BigInteger, "requests"),
        *_columns(BigInteger, *USAGE_SUMS[1:], nullable=True),
        sqlite_with_rowid=False,
    )


def _energy(name: str) -> Table:
    return Table(
        name,
        METADATA,
        *_key(BigInteger, "start"),
        *_key(Text, "lifetime", "device", "scope", *CONFIGURATION, "tenant", "account", "phase", "currency"),
        *_columns(BigInteger, "energy_uj"),
        *_columns(Double, "grams", nullable=True),
        *_columns(BigInteger, "grams_uj"),
        *_columns(Double, "cost", nullable=True),
        *_columns(BigInteger, "cost_uj"),
        sqlite_with_rowid=False,
    )


USAGE_HOURS: Final = _usage("usage_hours")
USAGE_DAYS: Final = _usage("usage_days")
ENERGY_HOURS: Final = _energy("energy_hours")
ENERGY_DAYS: Final = _energy("energy_days")
