"""Laws of the sums: records, hours, days and what was handed in agree, whatever comes in whatever order."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from server.accounts import Account, Phase, Posting, RecordKey
from server.config import LedgerSettings
from server.ledger.booking import Booking
from server.ledger.database import Database
from server.ledger.period import DAY_S, HOUR_S, Period
from server.ledger.schema import prepare
from server.ledger.sums import sums
from server.ledger.waiting import Waiting
from server.units import Microjoules
from server.wire import Outcome, RequestRecord
from tests.fakes.batches import batch, record, worker
from tests.ledger.plane import RATES, energy_of, posting

START = 1_800_000_000.0
NAMES = st.sampled_from(["a", "b", "none"])
COUNTS = st.none() | st.integers(0, 2**40)
MOMENTS = st.integers(0, 3 * DAY_S).map(float)

RECORDS = st.builds(
    record,
    tenant=NAMES,
    adapter=NAMES,
    engine=st.none() | NAMES,
    outcome=st.sampled_from(Outcome),
    ended_at=MOMENTS,
    prompt_tokens=COUNTS,
    cached_tokens=COUNTS,
    output_tokens=COUNTS,
    tokens_spared=COUNTS,
)
POSTINGS = st.dictionaries(
    st.builds(posting, tenant=NAMES, engine=NAMES, account=st.sampled_from(Account), phase=st.sampled_from(Phase)),
    st.integers(0, 2**50),
    max_size=4,
)
BATCHES = st.lists(
    st.tuples(st.sampled_from(["boot-a", "boot-b"]), st.lists(RECORDS, max_size=5), POSTINGS, MOMENTS, st.booleans()),
    max_size=8,
)


@contextlib.contextmanager
def empty_ledger() -> Iterator[tuple[Database, Booking]]:
    with tempfile.TemporaryDirectory() as folder:
        database = Database(LedgerSettings(), Path(folder))
        booking = Booking("life", "sqlite")
        with database.writer().begin() as connection:
            prepare(connection)
            booking.begin(connection, version="1", now=0.0)
        yield database, booking
        database.close()


def book(database: Database, booking: Booking, waiting: Waiting, *, again: bool) -> None:
    """Write what waits; `again`: the answer to the commit was lost, so that it is written a second time."""
    chunk = waiting.next()
    booking.write(database.writer(), chunk, now=START)
    if again:
        waiting.failed(chunk)
        chunk = waiting.next()
        booking.write(database.writer(), chunk, now=START)
    waiting.written(chunk)


@settings(max_examples=40, deadline=None)
@given(BATCHES)
def test_records_hours_and_days_agree_with_what_was_handed_in(batches: list[Any]) -> None:
    handed: list[RequestRecord] = []
    posted: Counter[Posting] = Counter()
    seqs: Counter[str] = Counter()
    waiting = Waiting(1_000_000)
    with empty_ledger() as (database, booking):
        for boot, records, postings, at, again in batches:
            seqs[boot] += 1
            one, hello = batch(seqs[boot], records=records), worker(boot)
            for _ in range(1 + again):
                waiting.take(one, hello, START)
            finals = [energy_of(RecordKey(boot, seqs[boot], place)) for place in range(len(records))]
            waiting.post(finals, {key: Microjoules(value) for key, value in postings.items()}, RATES, at=START + at)
            handed += records
            posted.update(postings)
            book(database, booking, waiting, again=again)
        with database.writer().begin() as connection:
            _check_usage(connection, handed)
            _check_energy(connection, posted)
            _check_periods(connection)


def _check_usage(connection: Connection, handed: list[RequestRecord]) -> None:
    rows = connection.execute(
        text("SELECT count(*), count(e.boot) FROM records LEFT JOIN energies e USING (boot, seq, place)")
    )
    assert tuple(rows.one()) == (len(handed), len(handed))
    for name in ("prompt_tokens", "cached_tokens", "output_tokens", "tokens_spared"):
        known = [value for one in handed if (value := getattr(one, name)) is not None]
        expected = sum(known) if known else None
        for table in ("records", "usage_hours", "usage_days"):
            assert connection.execute(text(f"SELECT sum({name}) FROM {table}")).scalar() == expected, (name, table)
    by_hour = Counter(int((START + one.ended_at) // HOUR_S) * HOUR_S for one in handed)
    found = connection.execute(text("SELECT start, sum(requests) FROM usage_hours GROUP BY start"))
    assert {row[0]: row[1] for row in found} == by_hour


def _check_energy(connection: Connection, posted: Counter[Posting]) -> None:
    for table in ("energy_hours", "energy_days"):
        query = f"SELECT tenant, engine, account, phase, sum(energy_uj) FROM {table} GROUP BY 1, 2, 3, 4"
        found = {tuple(row[:4]): row[4] for row in connection.execute(text(query))}
        expected = {(key.tenant, key.engine, key.account, key.phase): value for key, value in posted.items()}
        assert found == expected
        query = f"SELECT count(*) FROM {table} WHERE energy_uj <> grams_uj OR energy_uj <> cost_uj"
        assert connection.execute(text(query)).scalar() == 0


def _check_periods(connection: Connection) -> None:
    """Of any period, days and hours give what hours alone give."""
    first = START // HOUR_S * HOUR_S
    for start, end in ((0, 80), (5, 6), (3, 29), (24, 72), (1, 48)):
        period = Period(first + start * HOUR_S, first + end * HOUR_S)
        groups = sums(connection, ["tenant"], period)
        query = text("SELECT coalesce(sum(requests), 0) FROM usage_hours WHERE start >= :a AND start < :b")
        hours = connection.execute(query, {"a": period.start, "b": period.end}).scalar()
        assert sum(group.requests for group in groups) == hours
        query = text("SELECT coalesce(sum(energy_uj), 0) FROM energy_hours WHERE start >= :a AND start < :b")
        hours = connection.execute(query, {"a": period.start, "b": period.end}).scalar()
        assert sum(group.booked or 0 for group in groups) == hours


@given(st.integers(0, 2000), st.integers(1, 2000))
def test_parts_of_a_period_are_the_period_each_moment_once(start: int, hours: int) -> None:
    period = Period(start * HOUR_S, (start + hours) * HOUR_S)
    edges, days = period.parts()
    parts = sorted([*edges, *([days] if days else [])], key=lambda part: part.start)
    assert parts[0].start == period.start
    assert parts[-1].end == period.end
    assert all(one.end == other.start for one, other in pairwise(parts))
    if days is not None:
        assert (days.start % DAY_S, days.end % DAY_S) == (0, 0)
