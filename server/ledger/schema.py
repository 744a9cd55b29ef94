"""Brings a database to the newest revision of the tables, or says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import Column, Connection, MetaData, Table, Text, inspect, select, text

from server.errors import StartError

__all__ = ["REVISION", "prepare"]

REVISION: Final = "0001"
"""The newest."""
_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_VERSION: Final = Table("alembic_version", MetaData(), Column("version_num", Text))
_LOCK: Final = 0x57617474  # "Watt": an arbitrary number that nobody else is likely to lock


def prepare(connection: Connection, *, revision: str = "head") -> None:
    """In the connection's transaction, apply the revisions that are missing.

    Raises `StartError` if the database is of a revision that this program does not know.
    """
    if connection.dialect.name == "postgresql":  # several gateways may start at a time; SQLite locks the whole file
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    found = _revision(connection)
    if found != REVISION:
        _upgrade(connection, found, revision)


def _revision(connection: Connection) -> str | None:
    """None: the database is empty."""
    if not inspect(connection).has_table(_VERSION.name):
        return None
    return connection.execute(select(_VERSION.c.version_num)).scalar()


def _upgrade(connection: Connection, found: str | None, revision: str) -> None:
    # Here, not above: it needs 13 MB, which a control plane whose ledger is up to date does not spend.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise StartError(
            f"The ledger's tables are of revision {found[:40]!r}, this Wattgate knows them up to {REVISION}: use the "
            "newer Wattgate, or name another database in `ledger.url`."
        )
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
