"""The API keys, in SQLite in the state folder.

Only digests are stored: whoever reads the file cannot use a key. A plain SHA-256 is right here, unlike for passwords:
a key holds 256 random bits, so nobody can try all of them, however fast each trial is, and a slow hash would only cost
time on the path of a request.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from server.clock import Clock
from server.errors import ConflictError, NotFoundError, StartError
from server.wire import KeyGrant

__all__ = ["Key", "KeyKind", "KeyStore", "NewKey", "digest_of", "store_path"]

_SCHEMA: Final = 1
"""PRAGMA user_version; 0: a new file."""
_SECRET_BYTES: Final = 32
_SHOWN: Final = 9
"""Characters of a secret in lists: `wg-` and six more, 36 of its 256 bits."""
_BUSY_TIMEOUT_S: Final = 5.0
_SECONDS_A_DAY: Final = 86_400

_TABLE: Final = """
CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE,
    prefix TEXT NOT NULL,
    tenant TEXT NOT NULL,
    models TEXT,
    priority INTEGER NOT NULL,
    requests_per_minute INTEGER,
    tokens_per_minute INTEGER,
    concurrency INTEGER,
    created REAL NOT NULL,
    expires REAL,
    revoked REAL
) STRICT
"""


class KeyKind(StrEnum):
    """What a key opens."""

    CLIENT = "client"
    """The gateway."""
    ADMIN = "admin"
    """All of the control port."""
    METRICS = "metrics"
    """`/metrics` on the control port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """What a key shall be. The limits, models and priority mean something for clients only."""

    kind: KeyKind = KeyKind.CLIENT
    tenant: str = "default"
    models: tuple[str, ...] | None = None
    priority: int = 0
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    expires_in_days: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key as it is stored. Times are wall-clock seconds since the epoch."""

    id: str
    kind: KeyKind
    digest: str
    """SHA-256 of the secret, hexadecimal."""
    prefix: str
    """The secret's first characters, by which a person knows it again."""
    tenant: str
    models: tuple[str, ...] | None
    priority: int
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrency: int | None
    created: float
    expires: float | None
    revoked: float | None

    def holds(self, now: float) -> bool:
        """Neither revoked nor expired."""
        return self.revoked is None and (self.expires is None or now < self.expires)

    def state(self, now: float) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked is not None:
            return "revoked"
        return "active" if self.holds(now) else "expired"

    def grant(self) -> KeyGrant:
        """What workers must know of it."""
        return KeyGrant(
            id=self.id,
            tenant=self.tenant,
            models=None if self.models is None else list(self.models),
            priority=self.priority,
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            concurrency=self.concurrency,
        )


def digest_of(secret: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def store_path(state_dir: Path) -> Path:
    """Where the keys of a gateway lie."""
    return state_dir / "keys.sqlite"


class KeyStore:
    """All keys that were ever made; a revoked one stays in the list. Every method reads or writes the disk."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    def listed(self) -> list[Key]:
        """In the order in which they were made; none if there is no file."""
        if not self._path.exists():
            return []
        with self._open() as database:
            return [_key(row) for row in database.execute("SELECT * FROM keys ORDER BY created, rowid")]

    def create(self, wanted: NewKey) -> tuple[Key, str]:
        """Make a key; the secret is returned once and kept nowhere."""
        secret = "wg-" + secrets.token_urlsafe(_SECRET_BYTES)
        now = self._clock.wall()
        days = wanted.expires_in_days
        key = Key(
            id=f"key-{secrets.token_hex(4)}",
            kind=wanted.kind,
            digest=digest_of(secret),
            prefix=secret[:_SHOWN],
            tenant=wanted.tenant,
            models=wanted.models,
            priority=wanted.priority,
            requests_per_minute=wanted.requests_per_minute,
            tokens_per_minute=wanted.tokens_per_minute,
            concurrency=wanted.concurrency,
            created=now,
            expires=None if days is None else now + days * _SECONDS_A_DAY,
            revoked=None,
        )
        with self._open() as database:
            database.execute(
                "INSERT INTO keys VALUES (:id, :kind, :digest, :prefix, :tenant, :models, :priority,"
                " :requests_per_minute, :tokens_per_minute, :concurrency, :created, :expires, :revoked)",
                _row(key),
            )
        return key, secret

    def revoke(self, key_id: str) -> Key:
        """From now on the key opens nothing; raises `NotFoundError`, and `ConflictError` if it was revoked before."""
        known = {key.id: key for key in self.listed()}
        if key_id not in known:
            raise NotFoundError(f"There is no key {key_id[:100]!r}; `wattgate key list` shows the ids.", param="id")
        if known[key_id].revoked is not None:
            raise ConflictError(f"The key {key_id} was revoked before.", param="id")
        with self._open() as database:
            database.execute("UPDATE keys SET revoked = ? WHERE id = ?", (self._clock.wall(), key_id))
            row = database.execute("SELECT * FROM keys WHERE id = ?", (key_id,)).fetchone()
        return _key(row)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction: threads take turns here, and a connection belongs to one."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite would make it readable for all
        try:
            with closing(sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT_S)) as database:
                database.row_factory = sqlite3.Row
                self._prepare(database)
                with database:
                    yield database
        except sqlite3.Error as exc:
            raise StartError(
                f"{self._path} cannot be used ({exc}). If it is broken, move it away and make new keys."
            ) from exc

    def _prepare(self, database: sqlite3.Connection) -> None:
        database.execute("PRAGMA journal_mode = WAL")
        with database:
            database.execute("BEGIN IMMEDIATE")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version == 0:
                database.execute(_TABLE)
                database.execute(f"PRAGMA user_version = {_SCHEMA}")
            elif version != _SCHEMA:
                raise StartError(
                    f"{self._path} is of version {version}, this Wattgate knows {_SCHEMA}: use the newer Wattgate."
                )


def _row(key: Key) -> dict[str, Any]:
    named = {name: getattr(key, name) for name in Key.__slots__}
    return {**named, "kind": str(key.kind), "models": None if key.models is None else json.dumps(key.models)}


def _key(row: sqlite3.Row) -> Key:
    values = dict(row)
    models = values["models"]
    return Key(
        **{
            **values,
            "kind": KeyKind(values["kind"]),
            "models": None if models is None else tuple(json.loads(models)),
        }
    )
