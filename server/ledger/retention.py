"""Removes single records that are too old, a few at a time; the sums stay."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, delete, select

from server.clock import Clock
from server.ledger.period import DAY_S
from server.ledger.tables import ENERGIES, RECORD_KEY, RECORDS, WORKERS
from server.units import Seconds

__all__ = ["Retention"]

_EVERY: Final = Seconds(60.0)
_AT_A_TIME: Final = 5000
"""As many as a transaction may add, so that it keeps up however much comes."""
_WORKERS_AT_A_TIME: Final = 10
_WORKER_DAYS: Final = 7.0
"""A worker's mark must outlive any batch that may come again: at least so long is it kept."""


class Retention:
    """For the writing thread."""

    def __init__(self, days: float, clock: Clock) -> None:
        self._days = days
        self._clock = clock
        self._next_at = clock.monotonic()

    @property
    def is_due(self) -> bool:
        return self._clock.monotonic() >= self._next_at

    def postpone(self) -> None:
        self._next_at = Seconds(self._clock.monotonic() + _EVERY)

    def forget(self, connection: Connection) -> int:
        """Remove some of what is too old; how many records. While there is more, it stays due."""
        records = self._forget_records(connection)
        if records < _AT_A_TIME and self._forget_workers(connection) < _WORKERS_AT_A_TIME:
            self.postpone()
        return records

    def _forget_records(self, connection: Connection) -> int:
        oldest = (
            select(*(RECORDS.c[name] for name in RECORD_KEY))
            .where(RECORDS.c.ended < self._clock.wall() - self._days * DAY_S)
            .order_by(RECORDS.c.ended)
            .limit(_AT_A_TIME)
        )
        keys = connection.execute(oldest).all()
        if keys:
            parameters = [tuple(key) for key in keys]
            for table in (ENERGIES, RECORDS):
                connection.exec_driver_sql(_deletion(table.name, connection.dialect.name), parameters)
        return len(keys)

    def _forget_workers(self, connection: Connection) -> int:
        """Their marks, and energies whose records never came."""
        before = self._clock.wall() - max(self._days, _WORKER_DAYS) * DAY_S
        gone = select(WORKERS.c.boot).where(WORKERS.c.seen < before).limit(_WORKERS_AT_A_TIME)
        boots = list(connection.execute(gone).scalars())
        if boots:
            connection.execute(delete(ENERGIES).where(ENERGIES.c.boot.in_(boots)))
            connection.execute(delete(WORKERS).where(WORKERS.c.boot.in_(boots)))
        return len(boots)


def _deletion(table: str, dialect: str) -> str:
    mark = {"sqlite": "?", "postgresql": "%s"}[dialect]
    return f"DELETE FROM {table} WHERE {' AND '.join(f'{name} = {mark}' for name in RECORD_KEY)}"  # noqa: S608
