"""The first tables: lives, records, energies, sums by the hour and by the day."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0001"
down_revision: Final = None

_CONFIGURATION: Final = ("engine", "model", "variant", "precision", "adapter")
_TOKENS: Final = ("prompt_tokens", "cached_tokens", "output_tokens", "tokens_spared")


def upgrade() -> None:
    _lives()
    _records()
    for table in ("usage_hours", "usage_days"):
        _usage(table)
    for table in ("energy_hours", "energy_days"):
        _energy(table)


def _lives() -> None:
    op.create_table(
        "lifetimes",
        *_key(sa.Text(), "lifetime"),
        *_columns(sa.Text(), "version"),
        *_columns(sa.Double(), "started", "seen"),
        *_columns(sa.Double(), "stopped", nullable=True),
        *_columns(sa.BigInteger(), "posted"),
        comment="Of control planes. `posted`: the newest of its postings that is in the energy sums; each counts once.",
    )
    op.create_table(
        "workers",
        *_key(sa.Text(), "boot"),
        *_columns(sa.BigInteger(), "seq"),
        *_columns(sa.Double(), "seen"),
        comment="Lives of gateway workers. `seq`: the newest of its batches that is in the ledger, with all before it.",
    )


def _records() -> None:
    op.create_table(
        "records",
        *_record_key(),
        *_columns(sa.Text(), "lifetime", "id"),
        *_columns(sa.Double(), "received", "ended"),
        *_columns(sa.Text(), "tenant", "endpoint"),
        *_columns(sa.Text(), "requested_model", *_CONFIGURATION[:4], nullable=True),
        *_columns(sa.Text(), "adapter", "outcome"),
        *_columns(sa.Integer(), "status"),
        *_columns(sa.Boolean(), "streamed"),
        *_columns(sa.Text(), "cancelled_when", nullable=True),
        *_columns(sa.Integer(), "retries"),
        *_columns(sa.BigInteger(), *_TOKENS, nullable=True),
        *_columns(sa.Double(), "queue_s"),
        *_columns(sa.Double(), "time_to_first_token_s", nullable=True),
        *_columns(sa.Double(), "duration_s"),
        *_columns(sa.Double(), "upstream_s", nullable=True),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_records_id", "records", ["id"])
    op.create_index("ix_records_ended", "records", ["ended"])
    op.create_table(
        "energies",
        *_record_key(),
        *_columns(sa.BigInteger(), "prefill_uj", "decode_uj"),
        *_columns(sa.Boolean(), "whole"),
        *_columns(sa.Text(), "scope", "method"),
        *_columns(sa.Double(), "confidence"),
        *_columns(sa.Double(), "grams", "cost", nullable=True),
        *_columns(sa.Text(), "currency", nullable=True),
        sqlite_with_rowid=False,
        comment="Of requests; final.",
    )


def _usage(table: str) -> None:
    op.create_table(
        table,
        *_key(sa.BigInteger(), "start"),
        *_key(sa.Text(), "lifetime", *_CONFIGURATION, "tenant", "outcome"),
        *_columns(sa.BigInteger(), "requests"),
        *_columns(sa.BigInteger(), *_TOKENS, nullable=True),
        sqlite_with_rowid=False,
    )


def _energy(table: str) -> None:
    op.create_table(
        table,
        *_key(sa.BigInteger(), "start"),
        *_key(sa.Text(), "lifetime", "device", "scope", *_CONFIGURATION, "tenant", "account", "phase", "currency"),
        *_columns(sa.BigInteger(), "energy_uj"),
        *_columns(sa.Double(), "grams", nullable=True),
        *_columns(sa.BigInteger(), "grams_uj"),
        *_columns(sa.Double(), "cost", nullable=True),
        *_columns(sa.BigInteger(), "cost_uj"),
        sqlite_with_rowid=False,
    )


def _columns(type_: sa.types.TypeEngine[Any], *names: str, nullable: bool = False) -> list[sa.Column[Any]]:
    return [sa.Column(name, type_, nullable=nullable) for name in names]


def _key(type_: sa.types.TypeEngine[Any], *names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, type_, primary_key=True, autoincrement=False, nullable=False) for name in names]


def _record_key() -> list[sa.Column[Any]]:
    return [*_key(sa.Text(), "boot"), *_key(sa.BigInteger(), "seq"), *_key(sa.Integer(), "place")]
