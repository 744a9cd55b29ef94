"""Reads the ledger: one request, sums over a period, all records of a period."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Column, Connection, Row, Select, select, tuple_
from sqlalchemy.exc import SQLAlchemyError

from server.errors import BadRequestError, NoCapacityError, StartError
from server.ledger.database import Database
from server.ledger.group import GROUPS, Group
from server.ledger.period import Period
from server.ledger.rows import clean
from server.ledger.sums import sums
from server.ledger.tables import ENERGIES, RECORD_KEY, RECORDS

__all__ = ["RECORD_COLUMNS", "Queries"]

_ENERGY_COLUMNS: Final = tuple(column for column in ENERGIES.columns if column.name not in RECORD_KEY)
_RECORD_COLUMNS: Final = tuple(column for column in RECORDS.columns if column.name not in (*RECORD_KEY, "lifetime"))
RECORD_COLUMNS: Final = tuple(column.name for column in (*_RECORD_COLUMNS, *_ENERGY_COLUMNS))
"""Of what `request` and `export` give."""
_MOST: Final = 100
"""Records with the same id: clients may send one again and again."""
_PAGE: Final = 2000
"""Records read at a time: a reader that takes long would hold up SQLite's checkpoints."""


class Queries:
    """May be used by several threads at a time; each call takes a thread's time.

    Raises `NoCapacityError` while the database cannot be read.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def request(self, request_id: str) -> list[dict[str, Any]]:
        """All records with this id, the newest first; the columns of energy are None until it is final."""
        wanted = _records().where(RECORDS.c.id == clean(request_id)).order_by(RECORDS.c.ended.desc()).limit(_MOST)
        with self._connection() as connection:
            return [_named(row) for row in connection.execute(wanted)]

    def energy(self, by: Sequence[str], period: Period) -> list[Group]:
        """Sums over a period of whole hours, the group with the most active energy first."""
        for name in by:
            if name not in GROUPS:
                raise BadRequestError(f"`by` names {name[:60]!r}. It may name {', '.join(GROUPS)}.", param="by")
        with self._connection() as connection:
            return sums(connection, by, period)

    def export(self, period: Period) -> Iterator[dict[str, Any]]:
        """All records that ended in the period, oldest first; those that come meanwhile may be among them."""
        order = [RECORDS.c.ended, *(RECORDS.c[name] for name in RECORD_KEY)]
        within = _records(*order).where(RECORDS.c.ended < period.end).order_by(*order).limit(_PAGE)
        page, after = within.where(RECORDS.c.ended >= period.start), None
        while True:
            if after is not None:
                page = within.where(RECORDS.c.ended >= after[0], tuple_(*order) > after)
            with self._connection() as connection:
                rows = connection.execute(page).all()
            for row in rows:
                yield _named(row)
            if len(rows) < _PAGE:
                return
            after = tuple(rows[-1][-len(order) :])

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        try:
            with self._database.reader().connect() as connection:
                yield connection
        except (SQLAlchemyError, sqlite3.Error, StartError, OSError) as exc:
            reason = str(getattr(exc, "orig", None) or exc)
            raise NoCapacityError(f"The ledger {self._database.shown} cannot be read ({reason}). Try again.") from exc


def _records(*more: Column[Any]) -> Select[Any]:
    key = [RECORDS.c[name] == ENERGIES.c[name] for name in RECORD_KEY]
    return select(*_RECORD_COLUMNS, *_ENERGY_COLUMNS, *more).select_from(
        RECORDS.outerjoin(ENERGIES, key[0] & key[1] & key[2])
    )


def _named(row: Row[Any]) -> dict[str, Any]:
    return dict(zip(RECORD_COLUMNS, row, strict=False))
