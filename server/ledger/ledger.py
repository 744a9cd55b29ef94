"""Durable records of requests and their energies: taken on the event loop, written on a thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.accounts import Posting, Rates, RequestEnergy
from server.clock import Clock
from server.config import LedgerSettings
from server.ledger.database import Database
from server.ledger.queries import Queries
from server.ledger.retention import Retention
from server.ledger.waiting import Acknowledgement, Waiting
from server.ledger.writer import Writer
from server.telemetry.sources import Sample
from server.units import Microjoules, Seconds
from server.wire import Batch, Hello

__all__ = ["Ledger", "LedgerState"]

_log = logging.getLogger(__name__)

_PATIENCE: Final = Seconds(30.0)
"""So long do workers hold what cannot be written. Then this process alone does, and they have room for new records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerState:
    """How it is now."""

    up: bool
    """The last write succeeded."""
    problem: str | None
    """Why it is not up."""
    rows: int
    """Records written since this process started."""
    waiting: int
    lost: int
    """Records that never came into the ledger."""
    energies_lost: int
    """Of requests; the sums have them."""


class Ledger:
    """What is told to it is in the database soon, once, and survives this process.

    `take` and `post` never wait. While the database cannot be written, records wait: at their workers, too, for half a
    minute, then here alone; beyond `max_waiting` the oldest are lost, and counted.
    """

    def __init__(self, settings: LedgerSettings, *, state_dir: Path, clock: Clock) -> None:
        """Raises `ConfigError` if the URL cannot be used; opens nothing yet."""
        database = Database(settings, state_dir)
        self.queries = Queries(database)
        self._shown = database.shown
        self._clock = clock
        self._waiting = Waiting(settings.max_waiting)
        self._condition = threading.Condition()
        retention = Retention(settings.retention_days, clock)
        self._writer = Writer(database, self._waiting, self._condition, retention=retention, clock=clock)
        self._tell: Callable[[Iterable[Acknowledgement]], None] = lambda _: None

    @property
    def lifetime(self) -> str:
        """Names this life of the control plane in the tables."""
        return self._writer.lifetime

    def start(self, held: Callable[[Hello, int], None], *, version: str) -> None:
        """Begin to write. To be called on the event loop, where `held(worker, seq)` will be called.

        It says that the worker may forget this batch and all before it.
        """
        loop = asyncio.get_running_loop()

        def tell(acknowledgements: Iterable[Acknowledgement]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                for worker, seq in acknowledgements:
                    loop.call_soon_threadsafe(held, worker, seq)

        self._tell = tell
        self._writer.start(tell, version=version)

    def take(self, batch: Batch, worker: Hello) -> bool:
        """Queue the batch's records, unless they came before. To be given every batch, those that come again, too.

        True: the batch and all before it may be acknowledged; False: `held` will say when.
        """
        epoch = self._clock.wall() - self._clock.monotonic()
        with self._condition:
            held = self._waiting.take(batch, worker, epoch)
            lost = self._waiting.shed(0 if self._writer.off else None)
            impatient = self._writer.off or self._fails_for_long()
            if batch.records:
                self._condition.notify_all()
        self._tell(lost)
        return held or impatient

    def post(self, finals: Sequence[RequestEnergy], postings: Mapping[Posting, Microjoules], rates: Rates) -> None:
        """Queue what requests have used, and what was posted to the accounts since the last call."""
        with self._condition:
            if self._writer.off:
                self._waiting.energies_lost += len(finals)
                return
            self._waiting.post(finals, postings, rates, at=self._clock.wall())
            self._condition.notify_all()

    async def flush(self, bound: Seconds) -> bool:
        """Write all that waits; False if that took too long."""
        return await asyncio.to_thread(self._writer.flush, bound)

    async def stop(self, bound: Seconds) -> None:
        """Write all that waits, as far as the bound allows; the rest is lost."""
        await asyncio.to_thread(self._writer.stop, bound)
        left = self.state().waiting
        if left:
            _log.error("the ledger %s could not be written in time: %d records are lost", self._shown, left)

    def state(self) -> LedgerState:
        """May be called by any thread."""
        with self._condition:
            return LedgerState(
                up=self._writer.problem is None,
                problem=self._writer.problem,
                rows=self._writer.rows,
                waiting=self._waiting.records,
                lost=self._waiting.lost,
                energies_lost=self._waiting.energies_lost,
            )

    def samples(self) -> Iterable[Sample]:
        """For the exposition."""
        state = self.state()
        return (
            ("wattgate_ledger_up", (), float(state.up)),
            ("wattgate_ledger_rows_total", (), float(state.rows)),
            ("wattgate_ledger_waiting", (), float(state.waiting)),
            ("wattgate_ledger_lost_total", (), float(state.lost)),
            ("wattgate_ledger_energies_lost_total", (), float(state.energies_lost)),
        )

    def _fails_for_long(self) -> bool:
        since = self._writer.failing_since
        return since is not None and self._clock.monotonic() - since >= _PATIENCE
