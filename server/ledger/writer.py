"""The ledger's writing thread: one transaction after the other, whatever fails."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterable
from typing import Final

from server.clock import Clock
from server.errors import StartError
from server.ledger.booking import Booked, Booking
from server.ledger.database import Database
from server.ledger.retention import Retention
from server.ledger.schema import prepare
from server.ledger.waiting import Acknowledgement, Chunk, Waiting
from server.units import Seconds

__all__ = ["Writer"]

_log = logging.getLogger(__name__)

_GATHER_S: Final = 0.1
"""Between two transactions, unless much waits: so long do workers wait for acknowledgements, and no longer."""
_MUCH: Final = 2500
"""Records that need not wait for more."""
_IDLE_S: Final = 5.0
_FIRST_BACKOFF_S: Final = 0.25
_MAX_BACKOFF_S: Final = 5.0


class Writer:
    """Writes what is in `waiting`; whoever touches that, or the attributes here, holds `condition`."""

    def __init__(
        self,
        database: Database,
        waiting: Waiting,
        condition: threading.Condition,
        *,
        retention: Retention,
        clock: Clock,
    ) -> None:
        self.lifetime = secrets.token_hex(4)
        """Names this life of the control plane in the tables."""
        self.problem: str | None = "It was not opened yet."
        """None: the last write succeeded."""
        self.failing_since: Seconds | None = None
        self.off = False
        """This program cannot use that database, however often it tries."""
        self.rows = 0
        """Records written."""
        self._database = database
        self._waiting = waiting
        self._condition = condition
        self._retention = retention
        self._clock = clock
        self._booking = Booking(self.lifetime, database.url.get_backend_name())
        self._held: Callable[[Iterable[Acknowledgement]], None] = lambda _: None
        self._version = ""
        self._is_open = False
        self._has_tried = False
        """To write, or at least to open the database."""
        self._backoff_s = 0.0
        self._hurry = False
        self._stopping = False
        self._over = False
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    def start(self, held: Callable[[Iterable[Acknowledgement]], None], *, version: str) -> None:
        """Open the database and begin; `held` is called on the thread, and must return at once."""
        self._held, self._version = held, version
        self._thread.start()

    def flush(self, bound: Seconds) -> bool:
        """Write all that waits; at the start, try to open the database. False if that took too long."""
        with self._condition:
            self._hurry = True
            self._condition.notify_all()
            return self._condition.wait_for(lambda: self.off or (self._has_tried and self._waiting.is_empty), bound)

    def stop(self, bound: Seconds) -> None:
        """Write all that waits, and end, or end at the bound."""
        with self._condition:
            self._stopping = self._hurry = True
            self._condition.notify_all()
        if self._thread.ident is not None:
            self._thread.join(bound)
        with self._condition:
            self._over = True
            self._condition.notify_all()

    def _run(self) -> None:
        while (chunk := self._next()) is not None:
            try:
                booked = self._write(chunk)
            except StartError as exc:
                self._turn_off(chunk, str(exc))
                break
            except Exception as exc:  # noqa: BLE001  # whatever it is, the thread must live to try again
                self._fail(chunk, exc)
            else:
                self._succeed(chunk, booked)
                self._forget_old()
        if self._is_open:
            self._end()
        self._close()

    def _next(self) -> Chunk | None:
        """Wait for something to do; an empty chunk: look whether all is well; None: it is over."""
        with self._condition:
            if self._backoff_s:
                self._condition.wait_for(lambda: self._hurry or self._over, self._backoff_s)
            elif self._is_open and not self._retention.is_due:
                self._condition.wait_for(lambda: self._stopping or not self._waiting.is_empty, _IDLE_S)
                self._condition.wait_for(self._is_enough, _GATHER_S)
            self._hurry = False
            if self._over or (self._stopping and self._waiting.is_empty):
                return None
            return self._waiting.next()

    def _is_enough(self) -> bool:
        return self._hurry or self._stopping or self._waiting.records >= _MUCH or self._waiting.is_empty

    def _write(self, chunk: Chunk) -> Booked:
        if self._database.is_replaced():
            _log.error("the ledger %s was removed or replaced; starting it anew", self._database.shown)
            self._close()
        if not self._is_open:
            self._open()
        if chunk.is_empty:
            return Booked(written=0, refused=0)
        return self._booking.write(self._database.writer(), chunk, now=self._clock.wall())

    def _open(self) -> None:
        with self._database.writer().begin() as connection:
            prepare(connection)
            self._booking.begin(connection, version=self._version, now=self._clock.wall())
        self._is_open = True

    def _close(self) -> None:
        self._is_open = False
        try:
            self._database.close()
        except Exception as exc:  # noqa: BLE001  # nothing depends on it
            _log.warning("the ledger %s was not closed in order: %s", self._database.shown, exc)

    def _end(self) -> None:
        """Say when this life ended."""
        try:
            with self._database.writer().begin() as connection:
                self._booking.end(connection, now=self._clock.wall())
        except Exception as exc:  # noqa: BLE001  # nothing depends on it
            _log.warning("the end of this life is not in the ledger %s: %s", self._database.shown, exc)

    def _succeed(self, chunk: Chunk, booked: Booked) -> None:
        with self._condition:
            if self.failing_since is not None:
                _log.warning("the ledger %s is written again", self._database.shown)
            self.problem, self.failing_since, self._backoff_s = None, None, 0.0
            self._has_tried = True
            self.rows += booked.written
            self._waiting.lost += booked.refused
            self._held(self._waiting.written(chunk))  # before anybody hears that all is written
            self._condition.notify_all()

    def _fail(self, chunk: Chunk, reason: Exception) -> None:
        problem = str(getattr(reason, "orig", None) or reason) or type(reason).__name__
        if self.problem != problem:
            _log.error("the ledger %s cannot be written (%s); trying again", self._database.shown, problem)
        self._close()
        with self._condition:
            self.problem = problem
            self.failing_since = self._clock.monotonic() if self.failing_since is None else self.failing_since
            self._backoff_s = min(_MAX_BACKOFF_S, 2 * self._backoff_s or _FIRST_BACKOFF_S)
            self._waiting.failed(chunk)
            self._waiting.pack()
            self._has_tried = True
            self._condition.notify_all()

    def _turn_off(self, chunk: Chunk, problem: str) -> None:
        _log.error("the ledger is off, serving goes on: %s", problem)
        with self._condition:
            self.problem, self.off = problem, True
            self._waiting.failed(chunk)
            self._held(self._waiting.shed(0))
            self._condition.notify_all()

    def _forget_old(self) -> None:
        """A part of what is too old; the rest in the next rounds, so that nothing waits for long."""
        if not self._retention.is_due:
            return
        try:
            with self._database.writer().begin() as connection:
                self._retention.forget(connection)
        except Exception as exc:  # noqa: BLE001  # it is tried again
            self._retention.postpone()
            _log.warning("old records could not be removed from the ledger %s: %s", self._database.shown, exc)
