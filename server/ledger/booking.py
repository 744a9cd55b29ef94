"""Writes a chunk of what waits, in one transaction, each thing once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine, Table, case, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, IntegrityError

from server.ledger.rows import by_day, energy_row, posting_rows, record_row, usage_rows
from server.ledger.tables import (
    ENERGIES,
    ENERGY_DAYS,
    ENERGY_HOURS,
    ENERGY_SUMS,
    LIFETIMES,
    RECORDS,
    USAGE_DAYS,
    USAGE_HOURS,
    USAGE_SUMS,
    WORKERS,
)
from server.ledger.waiting import Chunk, WaitingBatch

__all__ = ["Booked", "Booking"]

_log = logging.getLogger(__name__)

_Row = tuple[Any, ...]
_Insert = Callable[[Connection, list[_Row]], list[_Row]]

_REFUSED: Final = (DataError, IntegrityError, OverflowError, UnicodeError)
"""It is the row's fault: trying again would not help. Anything else is the database's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """What became of a chunk's records; those that are in neither were in the ledger before."""

    written: int
    refused: int


class Booking:
    """Of one control plane's lifetime, into one kind of database."""

    def __init__(self, lifetime: str, dialect: str) -> None:
        self._lifetime = lifetime
        self._insert: Any = {"sqlite": sqlite, "postgresql": postgresql}[dialect].insert
        self._add_records = _positional(RECORDS, dialect)
        self._add_energies = _positional(ENERGIES, dialect) + " ON CONFLICT DO NOTHING"
        self._add_hours = self._adding(USAGE_HOURS, USAGE_SUMS)
        self._add_days = self._adding(USAGE_DAYS, USAGE_SUMS)
        self._add_energy_hours = self._adding(ENERGY_HOURS, ENERGY_SUMS)
        self._add_energy_days = self._adding(ENERGY_DAYS, ENERGY_SUMS)
        self._mark = self._marking()

    def begin(self, connection: Connection, *, version: str, now: float) -> None:
        """Make this lifetime known, unless it is."""
        row = {"lifetime": self._lifetime, "version": version, "started": now, "seen": now, "posted": 0}
        connection.execute(self._insert(LIFETIMES).values(row).on_conflict_do_nothing())

    def end(self, connection: Connection, *, now: float) -> None:
        """The control plane stops."""
        mine = LIFETIMES.c.lifetime == self._lifetime
        connection.execute(update(LIFETIMES).where(mine).values(stopped=now, seen=now))

    def write(self, engine: Engine, chunk: Chunk, *, now: float) -> Booked:
        """Everything that is not in the ledger yet, but for records that the database refuses."""
        try:
            with engine.begin() as connection:
                return self._write(connection, chunk, now, insert=self._insert_all)
        except _REFUSED:
            with engine.begin() as connection:
                return self._write(connection, chunk, now, insert=self._insert_each)

    def _write(self, connection: Connection, chunk: Chunk, now: float, *, insert: _Insert) -> Booked:
        fresh = self._fresh(connection, chunk.batches)
        rows = [row for batch in fresh for row in self._rows(batch)]
        written = insert(connection, rows) if rows else []
        self._mark_workers(connection, chunk, now)
        if chunk.energies:
            energies = [energy_row(final, rates) for final, rates in chunk.energies]
            connection.exec_driver_sql(self._add_energies, energies)
        if written:
            hours = usage_rows(written, lifetime=self._lifetime)
            connection.execute(self._add_hours, hours)
            connection.execute(self._add_days, by_day(hours, USAGE_SUMS))
        self._post(connection, chunk, now)
        return Booked(written=len(written), refused=len(rows) - len(written))

    def _fresh(self, connection: Connection, batches: Sequence[WaitingBatch]) -> list[WaitingBatch]:
        """Those that no control plane has written: a worker's batches are numbered, and come in their order."""
        boots = sorted({batch.worker.boot for batch in batches})
        if not boots:
            return []
        marks = select(WORKERS.c.boot, WORKERS.c.seq).where(WORKERS.c.boot.in_(boots)).with_for_update()
        newest = {row.boot: row.seq for row in connection.execute(marks)}
        return [batch for batch in batches if batch.seq > newest.get(batch.worker.boot, 0)]

    def _rows(self, batch: WaitingBatch) -> Iterator[_Row]:
        for place, record in enumerate(batch.records()):
            key = (batch.worker.boot, batch.seq, place)
            yield record_row(key, record, epoch=batch.epoch, lifetime=self._lifetime)

    def _insert_all(self, connection: Connection, rows: list[_Row]) -> list[_Row]:
        connection.exec_driver_sql(self._add_records, rows)
        return rows

    def _insert_each(self, connection: Connection, rows: list[_Row]) -> list[_Row]:
        """Insert all but those that the database refuses; those that are in. Savepoints make it dear."""
        try:
            with connection.begin_nested():
                return self._insert_all(connection, rows)
        except _REFUSED as exc:
            if len(rows) == 1:
                _log.error("the ledger refuses the record %s: %s", rows[0][:3], exc)
                return []
            half = len(rows) // 2
            return self._insert_each(connection, rows[:half]) + self._insert_each(connection, rows[half:])

    def _mark_workers(self, connection: Connection, chunk: Chunk, now: float) -> None:
        marks = {final.key.boot: 0 for final, _ in chunk.energies}  # their lives are kept as long as the energies
        marks |= {batch.worker.boot: batch.seq for batch in chunk.batches}
        if marks:
            connection.execute(self._mark, [{"boot": boot, "seq": seq, "seen": now} for boot, seq in marks.items()])

    def _post(self, connection: Connection, chunk: Chunk, now: float) -> None:
        mine = LIFETIMES.c.lifetime == self._lifetime
        connection.execute(update(LIFETIMES).where(mine).values(seen=now))
        if not chunk.postings:
            return
        # After a connection that broke at the commit, nobody knows whether these are in; their number does.
        first = update(LIFETIMES).where(mine, LIFETIMES.c.posted < chunk.number).values(posted=chunk.number)
        if connection.execute(first).rowcount:
            hours = posting_rows(chunk.postings, lifetime=self._lifetime)
            connection.execute(self._add_energy_hours, hours)
            connection.execute(self._add_energy_days, by_day(hours, ENERGY_SUMS))

    def _adding(self, table: Table, summed: Sequence[str]) -> Any:
        """A new row, or its values added to those of the row that is there; NULL adds nothing."""
        new = self._insert(table)
        sums = {
            name: case(
                (new.excluded[name].is_(None), table.c[name]),
                else_=func.coalesce(table.c[name], 0) + new.excluded[name],
            )
            for name in summed
        }
        return new.on_conflict_do_update(index_elements=list(table.primary_key), set_=sums)

    def _marking(self) -> Any:
        new = self._insert(WORKERS)
        higher = case((new.excluded.seq > WORKERS.c.seq, new.excluded.seq), else_=WORKERS.c.seq)
        return new.on_conflict_do_update(
            index_elements=[WORKERS.c.boot], set_={"seq": higher, "seen": new.excluded.seen}
        )


def _positional(table: Table, dialect: str) -> str:
    """An insertion of tuples, in the driver's own words: with named parameters it takes twice as long."""
    mark = {"sqlite": "?", "postgresql": "%s"}[dialect]
    names = list(table.columns.keys())
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join([mark] * len(names))})"  # noqa: S608
