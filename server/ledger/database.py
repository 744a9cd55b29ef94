"""A SQLite file or a PostgreSQL database: engines, pragmas, bounds on every wait."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from server.config import LedgerSettings
from server.errors import ConfigError, StartError

__all__ = ["Database"]

_BUSY_S: Final = 2.0
"""Longest wait for another process's lock on the file; then the writer tries again."""
_PRAGMAS: Final = (
    # What is committed survives the end of this process, however it ends. A power cut may take the last commits
    # (never the file): FULL would wait for the disk with each.
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA cache_size = -16384",  # KiB; ids come in no order, and each must be entered into their index
    "PRAGMA wal_autocheckpoint = 16000",  # pages: 64 MB
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA temp_store = MEMORY",
)
_READING_PRAGMAS: Final = ("PRAGMA query_only = ON", "PRAGMA cache_size = -8192", "PRAGMA temp_store = MEMORY")
_POSTGRESQL: Final = {
    "connect_timeout": "5",
    "tcp_user_timeout": "15000",  # ms
    "options": "-c statement_timeout=30000 -c lock_timeout=10000",  # ms
    "application_name": "wattgate",
}


class Database:
    """Where the ledger lies. One engine writes, in one thread; the other reads, in any."""

    def __init__(self, settings: LedgerSettings, state_dir: Path) -> None:
        """Raises `ConfigError` if the URL cannot be read; touches nothing yet."""
        self.url = _url(settings.url, state_dir)
        self.path = Path(self.url.database or "") if self.is_sqlite else None
        self._writing: Engine | None = None
        self._reading: Engine | None = None
        self._inode = 0
        self._lock = threading.Lock()

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return self.url.render_as_string(hide_password=True)

    def writer(self) -> Engine:
        """For the writing thread alone."""
        if self._writing is None:
            if self.path is not None:
                self._make_file(self.path)
            self._writing = self._engine(_PRAGMAS, begin="BEGIN IMMEDIATE")
        return self._writing

    def reader(self) -> Engine:
        """Raises `StartError` where the file is gone: a reader makes no new one."""
        if self.path is not None and not self.path.exists():
            raise StartError(f"{self.path} does not exist.")
        with self._lock:
            if self._reading is None:
                self._reading = self._engine(_READING_PRAGMAS, begin="BEGIN")
            return self._reading

    def is_replaced(self) -> bool:
        """The file was removed or exchanged since `writer` opened it: whatever is written now is lost with it."""
        if self.path is None or self._writing is None:
            return False
        try:
            return self.path.stat().st_ino != self._inode
        except OSError:
            return True

    def close(self) -> None:
        """Let go of all connections; the next `writer` or `reader` opens new ones."""
        writing, self._writing = self._writing, None
        with self._lock:
            reading, self._reading = self._reading, None
        for engine in (writing, reading):
            if engine is not None:
                engine.dispose()

    def _make_file(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)  # SQLite would make it readable for all
        try:
            self._inode = os.fstat(descriptor).st_ino
        finally:
            os.close(descriptor)

    def _engine(self, pragmas: tuple[str, ...], *, begin: str) -> Engine:
        if not self.is_sqlite:
            given = {name: value for name, value in _POSTGRESQL.items() if name not in self.url.query}
            return create_engine(self.url, connect_args=given, pool_size=2, max_overflow=4, pool_timeout=10)
        engine = create_engine(
            self.url, connect_args={"timeout": _BUSY_S}, pool_size=2, max_overflow=4, pool_timeout=10
        )

        @event.listens_for(engine, "connect")
        def prepare(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # Python's sqlite3 would begin transactions where it sees fit
            for pragma in pragmas:
                connection.execute(pragma)

        @event.listens_for(engine, "begin")
        def start(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

        return engine


def _url(given: str | None, state_dir: Path) -> URL:
    if given is None:
        return URL.create("sqlite", database=str(state_dir / "ledger.sqlite"))
    try:
        url = make_url(given)
    except (ArgumentError, ValueError) as exc:
        raise ConfigError("ledger.url: is no database URL; docs/ledger.md shows some.") from exc
    if url.get_backend_name() == "sqlite":
        return url.set(database=str(state_dir / (url.database or "")))
    return url.set(drivername="postgresql+psycopg")
