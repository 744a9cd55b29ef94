"""What the control plane does with a ledger, and a look into its tables."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from server.accounts import Account, Phase, Posting, Rates, RecordKey, RequestEnergy
from server.clock import Clock
from server.config import LedgerSettings
from server.ledger.database import Database
from server.ledger.ledger import Ledger
from server.units import Microjoules, Seconds
from server.wire import Hello, RequestRecord
from tests.fakes.batches import batch
from tests.fakes.clock import FakeClock

__all__ = ["BOUND", "NO_RATES", "RATES", "Plane", "energy_of", "posting", "running"]

BOUND = Seconds(20.0)
RATES = Rates(grams_per_joule=1e-4, cost_per_joule=2e-8, currency="EUR", source="configured", kind="average")
NO_RATES = Rates(grams_per_joule=None, cost_per_joule=None, currency="EUR", source="none", kind="none")

_POSTING = Posting(
    device="gpu:0",
    scope="gpu",
    engine="demo-int4",
    model="demo",
    variant="int4",
    precision="int4",
    adapter="none",
    tenant="alice",
    account=Account.ACTIVE,
    phase=Phase.DECODE,
)


def posting(**fields: Any) -> Posting:
    return _POSTING._replace(**fields)


def energy_of(key: RecordKey, prefill: int = 1000, decode: int = 2000, **fields: Any) -> RequestEnergy:
    return RequestEnergy(
        key=key,
        id="r1",
        labels=("demo-int4", "demo", "int4", "int4", "none"),
        prefill=Microjoules(prefill),
        decode=Microjoules(decode),
        scope="gpu",
        method="phase_time",
        confidence=0.9,
        completed=True,
        whole=True,
    )._replace(**fields)


class Plane:
    """Feeds a ledger, hears what it says."""

    def __init__(self, folder: Path, url: str | None, clock: Clock, **settings: Any) -> None:
        self.settings = LedgerSettings(url=url, **settings)
        self.folder = folder
        self.clock = clock
        self.ledger = Ledger(self.settings, state_dir=folder, clock=clock)
        self.acknowledged: list[tuple[str, int]] = []
        self._changed = asyncio.Event()

    def start(self) -> None:
        self.ledger.start(self._held, version="1.2.3")

    def _held(self, worker: Hello, seq: int) -> None:
        self.acknowledged.append((worker.boot, seq))
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something holds: looked at when an acknowledgement comes, and often."""
        async with asyncio.timeout(BOUND):
            while not condition():
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 0.02)

    def take(self, worker: Hello, seq: int, records: Sequence[RequestRecord] = ()) -> bool:
        return self.ledger.take(batch(seq, records=records), worker)

    def post(self, finals: Sequence[RequestEnergy], postings: Mapping[Posting, int], rates: Rates) -> None:
        self.ledger.post(finals, {key: Microjoules(energy) for key, energy in postings.items()}, rates)

    async def written(self) -> None:
        """All that was given is in the database."""
        assert await self.ledger.flush(BOUND)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Of a query of one's own."""
        with self._look() as connection:
            return [tuple(row) for row in connection.execute(text(sql))]

    def execute(self, *statements: str) -> None:
        with self._look() as connection:
            for statement in statements:
                connection.execute(text(statement))

    @contextlib.contextmanager
    def _look(self) -> Any:
        engine = create_engine(Database(self.settings, self.folder).url, poolclass=NullPool)
        try:
            with engine.begin() as connection:
                yield connection
        finally:
            engine.dispose()


@contextlib.asynccontextmanager
async def running(
    folder: Path, url: str | None = None, clock: Clock | None = None, *, bound: Seconds = BOUND, **settings: Any
) -> AsyncIterator[Plane]:
    """A ledger that writes until the end of the block, and then all that waits."""
    plane = Plane(folder, url, clock or FakeClock(), **settings)
    plane.start()
    try:
        yield plane
    finally:
        await plane.ledger.stop(bound)
