"""The admin API's part for the ledger: requests, energy over a period, CSV."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query
from fastapi.responses import StreamingResponse

from server.clock import Clock
from server.errors import BadRequestError, NotFoundError
from server.ledger.csv_lines import CONTENT_TYPE, csv_lines
from server.ledger.energy_view import energy_columns, energy_flat, energy_report
from server.ledger.group import GROUPS
from server.ledger.ledger import Ledger
from server.ledger.period import Period, parse_period
from server.ledger.record_view import record_columns, record_flat, record_view

__all__ = ["add_ledger"]

From = Annotated[str | None, Query(alias="from", description="ISO date or time, or seconds since 1970.")]
To = Annotated[str | None, Query(description="Likewise, exclusive; default: now.")]
By = Annotated[str | None, Query(description="Comma-separated: tenant, adapter, variant, engine, model.")]

_SHOWN_ID: Final = 100


def add_ledger(app: FastAPI, ledger: Ledger | None, *, clock: Clock, live: Callable[[], dict[str, Any]]) -> None:
    """Add what reads the ledger (None: there is none). `live` answers `/api/energy` without `by`."""
    _add_requests(app, ledger, clock)
    _add_energy(app, ledger, clock, live)


def _add_requests(app: FastAPI, ledger: Ledger | None, clock: Clock) -> None:
    # These functions are plain ones: they run on threads, since they wait for the database.
    @app.get("/api/requests.csv", summary="All records that ended in a period, as CSV")
    def requests_csv(from_: From = None, to: To = None) -> StreamingResponse:
        period = parse_period(from_, to, now=clock.wall())
        records = _there(ledger).queries.export(period)
        return _csv("requests.csv", csv_lines(record_columns(), map(record_flat, records)))

    @app.get("/api/requests/{request_id:path}", summary="A request by its id; its energy, once that is final")
    def request(request_id: str) -> dict[str, Any]:
        found = _there(ledger).queries.request(request_id)
        if not found:
            raise NotFoundError(
                f"No request {request_id[:_SHOWN_ID]!r} is in the ledger. It comes there within a second of its end, "
                "and goes after `ledger.retention_days`."
            )
        newest, *older = map(record_view, found)
        return {**newest, "others": older}


def _add_energy(app: FastAPI, ledger: Ledger | None, clock: Clock, live: Callable[[], dict[str, Any]]) -> None:
    @app.get("/api/energy", summary="Joules since the control plane started; with `by`, over a period of the ledger")
    async def energy(by: By = None, from_: From = None, to: To = None) -> dict[str, Any]:
        if by is None and from_ is None and to is None:
            return live()
        return await asyncio.to_thread(_energy, ledger, by, parse_period(from_, to, now=clock.wall()))

    @app.get("/api/energy.csv", summary="The same over a period, as CSV")
    def energy_csv(by: By = None, from_: From = None, to: To = None) -> StreamingResponse:
        found = _energy(ledger, by, parse_period(from_, to, now=clock.wall()))
        columns = energy_columns(found)
        return _csv("energy.csv", csv_lines(columns, energy_flat(found["rows"], columns)))


def _energy(ledger: Ledger | None, by: str | None, period: Period) -> dict[str, Any]:
    if by is None:
        raise BadRequestError(
            f"A period needs `by`: for example by=tenant. It may name {', '.join(GROUPS)}.", param="by"
        )
    labels, hours = list(dict.fromkeys(by.split(","))), period.widened()
    return energy_report(labels, hours, _there(ledger).queries.energy(labels, hours))


def _there(ledger: Ledger | None) -> Ledger:
    if ledger is None:
        raise NotFoundError("There is no ledger: `ledger.enabled` is false.")
    return ledger


def _csv(name: str, lines: Iterator[str]) -> StreamingResponse:
    first = next(lines)  # what cannot be read is an error, and not an answer that breaks off
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(chain([first], lines), media_type=CONTENT_TYPE, headers=headers)
