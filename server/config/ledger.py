"""Settings of the ledger."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from server.config.section import Settings

__all__ = ["LedgerSettings"]

_SQLITE: Final = re.compile(r"sqlite(\+pysqlite)?:///(?!:memory:|file:).+")
_POSTGRESQL: Final = re.compile(r"postgres(ql)?(\+psycopg)?://.+")


class LedgerSettings(Settings):
    url: str | None = Field(
        None,
        description="An SQLAlchemy URL: `postgresql+psycopg://user:${PASSWORD}@host/db`, or `sqlite:////folder/file`; "
        "default: SQLite in `state_dir`/ledger.sqlite.",
    )
    enabled: bool = Field(True, description="Keep durable usage records.")
    retention_days: float = Field(
        90.0, gt=0, le=36_500, description="Age at which single records go; the hourly sums stay."
    )
    max_waiting: int = Field(
        200_000, ge=1000, le=10_000_000, description="Records held while the ledger cannot be written; more are lost."
    )

    @model_validator(mode="after")  # of the whole section, whose error does not show the URL with its password
    def _database_that_can_be_used(self) -> Self:
        if self.url is None or _SQLITE.fullmatch(self.url):
            return self
        if not _POSTGRESQL.fullmatch(self.url):
            raise ValueError(
                "`url` names no database that the ledger knows; write `sqlite:////folder/ledger.sqlite` or "
                "`postgresql+psycopg://user:${PASSWORD}@host/name`"
            )
        try:
            _ = urlsplit(self.url).port
        except ValueError as exc:
            raise ValueError(f"`url` is no URL: {exc}") from exc
        if find_spec("psycopg") is None:
            raise ValueError("`url` needs the driver of PostgreSQL: pip install 'wattgate[postgresql]'")
        return self
