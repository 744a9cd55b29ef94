"""What one process sends in one test, in open or in closed loop."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Final

from gevent.event import Event
from gevent.pool import Group
from locust.exception import StopUser

from loadgen._client import Client
from loadgen._connection import Clocks
from loadgen._dispatch import dispatch
from loadgen._gateway import Prepared
from loadgen._plan import Plan
from loadgen._record import Record
from loadgen._run import Run, Share
from loadgen._transport import Connections

__all__ = ["Sender"]

_LEAD_S: Final = 0.1
"""Until the first arrival: what Locust does at the start of a test is not to make it late."""
_COLLECT_AFTER: Final = (50_000, 20, 1000)
"""Thresholds of the three generations; records are in no cycles."""


class Sender:
    """Runs from its making on. `report` is told of every record, `drained` once everything is sent and answered.

    Raises `LoadError` where plan and workload do not fit.
    """

    def __init__(
        self,
        plan: Plan,
        prepared: Prepared,
        share: Share,
        *,
        report: Callable[[Record], None],
        drained: Callable[[], None],
        origin: float | None = None,
    ) -> None:
        _spare_collections()
        if origin is None and plan.open_loop:
            origin = time.monotonic() + _LEAD_S
        self.run = Run(plan, prepared, share=share, clock=time.monotonic, origin=origin)
        self._connections = Connections(plan.host, Clocks(now_s=self.run.now_s, wall_ns=time.time_ns))
        self._client = Client(self.run, self._connections, report)
        self._drained = drained
        self._stopping = Event()
        self._stopped_at = 0.0
        self._greenlets = Group()
        if not self._connections.stamps:
            self._greenlets.spawn(self.run.receive_lag.watch, self._stopping)
        self._dispatcher = self._greenlets.spawn(self._dispatch) if plan.open_loop else None

    def work(self) -> None:
        """A Locust user's task: one request in closed loop; in open loop it only waits for the dispatcher."""
        if self._dispatcher is not None:
            self._dispatcher.join()
            raise StopUser
        job = self.run.next_job()
        if job is None:
            raise StopUser
        self._client.send(self._client.letter(job))
        self._tell_if_drained()

    def stop(self) -> None:
        """Send nothing more."""
        if not self._stopping.is_set():
            self._stopped_at = time.monotonic()
            self._stopping.set()
            self.run.end()

    def close(self, drain_s: float) -> Run:
        """What is in flight may finish until `drain_s` after `stop`; then the run is whole."""
        self.stop()
        left_s = max(0.0, self._stopped_at + drain_s - time.monotonic())
        self._greenlets.join(timeout=left_s)
        self._greenlets.kill()
        self._connections.close()
        return self.run

    def _dispatch(self) -> None:
        dispatch(self._client, self.run, self._stopping)
        self._tell_if_drained()

    def _tell_if_drained(self) -> None:
        """Everything that --requests or the schedule asked for is answered: the test ends before --run-time does."""
        if self.run.ended and self.run.in_flight == 0 and not self._stopping.is_set():
            self.stop()
            self._drained()


def _spare_collections() -> None:
    """A full collection looks at every record there is, and whatever is due meanwhile is late."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
