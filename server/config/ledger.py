"""Settings of the ledger."""

from __future__ import annotations

from pydantic import Field

from server.config.section import Settings

__all__ = ["LedgerSettings"]


class LedgerSettings(Settings):
    url: str | None = Field(
        None,
        description="An SQLAlchemy URL: `postgresql+psycopg://user:${PASSWORD}@host/db`; default: SQLite in "
        "`state_dir`/ledger.sqlite.",
    )
    enabled: bool = Field(True, description="Keep durable usage records.")
    retention_days: float = Field(
        90.0, gt=0, le=36_500, description="Age at which single records go; the hourly sums stay."
    )
    max_waiting: int = Field(
        200_000, ge=1000, le=10_000_000, description="Records held while the ledger cannot be written; more are lost."
    )
