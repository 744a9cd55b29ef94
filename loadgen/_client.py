"""Sends one request and measures its answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gevent import GreenletExit

from loadgen._answer import Answer
from loadgen._connection import BrokenAnswerError, Connection
from loadgen._gateway import headers
from loadgen._measure import CONNECT, TIMEOUT, http_kind, record_of
from loadgen._plan import Plan
from loadgen._record import Record
from loadgen._run import Job, Run
from loadgen._stream import TRUNCATED
from loadgen._transport import Connections

__all__ = ["Client", "Letter"]

_OK: Final = 200
_MESSAGE_BYTES: Final = 300


@dataclass(frozen=True, slots=True)
class Letter:
    """A request whose bytes are made already: nothing is left to do when it is due."""

    job: Job
    data: bytes


class Client:
    """All requests of one process. `report` is told of every record, once it is whole."""

    def __init__(self, run: Run, connections: Connections, report: Callable[[Record], None]) -> None:
        self._run = run
        self._connections = connections
        self._report = report
        self._head = _head(run.plan, connections)

    def letter(self, job: Job) -> Letter:
        body = json.dumps(job.ask.body).encode()
        start = f"POST {self._connections.base_path}{job.ask.endpoint} HTTP/1.1\r\n"
        end = f"x-request-id: {job.request_id}\r\nContent-Length: {len(body)}\r\n\r\n"
        return Letter(job, b"".join((start.encode(), self._head, end.encode(), body)))

    def send(self, letter: Letter) -> None:
        """One request, start to end; adds one record to the run.

        A request that the end of the run cuts off is counted as unfinished, not failed.
        """
        run, job = self._run, letter.job
        answer = Answer(streamed=job.ask.streamed, sent_s=run.now_s(), add_lag=run.receive_lag.histogram.add)
        run.in_flight += 1
        run.sent += 1
        try:
            self._exchange(letter, answer)
            record = record_of(job, answer, open_loop=run.plan.open_loop)
            run.records.append(record)
        except GreenletExit:
            run.unfinished += 1
            raise
        finally:
            run.in_flight -= 1
        self._report(record)

    def _exchange(self, letter: Letter, answer: Answer) -> None:
        # Over a fresh connection once more where the server had closed an idle one.
        for fresh in (False, True):
            connection = None
            try:
                connection = self._connections.take(fresh=fresh)
                self._read(connection, letter, answer)
            except TimeoutError as exc:
                answer.fail(TIMEOUT, str(exc) or "No answer within the time for it.", self._run.now_s())
            except (OSError, BrokenAnswerError) as exc:
                if connection is not None and connection.stale:
                    continue
                self._cut(answer, exc)
            finally:
                if connection is not None:
                    self._connections.give_back(connection)
            return

    def _read(self, connection: Connection, letter: Letter, answer: Answer) -> None:
        try:
            connection.exchange(letter.data, answer.take)
        finally:
            answer.end(connection.status)
        if answer.status is not None and answer.status != _OK:
            message = answer.body[:_MESSAGE_BYTES].decode("utf-8", errors="replace")
            answer.fail(http_kind(answer.status), message, answer.ended_s)

    def _cut(self, answer: Answer, exc: Exception) -> None:
        at_s = self._run.now_s()
        if answer.status is None:
            answer.fail(CONNECT, str(exc), at_s)
        elif answer.status != _OK:
            answer.fail(http_kind(answer.status), str(exc), at_s)
        elif answer.stream is None:
            answer.fail(TRUNCATED, str(exc), at_s)
        # A stream that lacks its [DONE] says so itself.


def _head(plan: Plan, connections: Connections) -> bytes:
    """What stands in the head of every request."""
    fields = {"Host": connections.authority, "User-Agent": "wattgate-loadgen", "Accept": "*/*", **headers(plan)}
    return "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode()
