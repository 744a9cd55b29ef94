"""A worker: its stages, what it holds, and its tasks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from server.clock import Clock
from server.config.settings import GatewaySettings
from server.gateway.admission import Admission
from server.gateway.auth import Authenticator, OpenDoor
from server.gateway.bus import FLUSH_EVERY, BusClient
from server.gateway.lag import LoopLag
from server.gateway.records import Recorder
from server.gateway.routing.router import Router
from server.gateway.upstream.http1 import Http1Upstream, UpstreamLimits
from server.gateway.upstream.upstream import Upstream
from server.units import Seconds
from server.wire import PROTOCOL_VERSION, Hello, Snapshot, WorkerGauges

__all__ = ["Identity", "Visits", "Worker"]

_log = logging.getLogger("wattgate.gateway")

# Together with uvicorn's ticks less than the 5 s that the launcher grants beyond the drain.
_LAST_VISITS: Final = Seconds(1.0)
_LAST_ACK: Final = Seconds(3.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which worker this is."""

    slot: int
    pid: int
    boot: str
    """A random name of this life."""


class Visits:
    """The requests between their first header and their record, by id."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._none = asyncio.Event()
        self._none.set()

    @property
    def running(self) -> int:
        return len(self._ids)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._ids

    def began(self, request_id: str) -> None:
        self._ids.add(request_id)
        self._none.clear()

    def ended(self, request_id: str) -> None:
        self._ids.discard(request_id)
        if not self._ids:
            self._none.set()

    async def none_left(self, timeout: Seconds) -> None:
        """Wait until all have ended, or for `timeout`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._none.wait()


class Worker:
    """Everything that requests of one worker share. None of it is global: two workers in a process are two workers."""

    def __init__(
        self,
        settings: GatewaySettings,
        identity: Identity,
        *,
        bus: Path,
        clock: Clock,
        on_drain: Callable[[Seconds], None],
        flush_every: Seconds = FLUSH_EVERY,
    ) -> None:
        """`on_drain` is called when the control plane asks to finish."""
        self.settings = settings
        self.clock = clock
        self.visits = Visits()
        self.authenticator: Authenticator = OpenDoor()
        self.admission = Admission(
            max_in_flight=settings.max_in_flight,
            max_queue=settings.max_queue,
            queue_timeout=Seconds(settings.queue_timeout_s),
            clock=clock,
        )
        self.router = Router()
        self.upstream: Upstream = Http1Upstream(_limits(settings), clock=clock)
        self.lag = LoopLag(clock)
        self.recorder = Recorder(max_backlog=settings.max_record_backlog, clock=clock, gauges=self._gauges)
        hello = Hello(version=PROTOCOL_VERSION, slot=identity.slot, pid=identity.pid, boot=identity.boot)
        self.bus = BusClient(
            bus, hello, self.recorder, on_snapshot=self._adopt, on_drain=on_drain, flush_every=flush_every
        )
        self._boot = identity.boot
        self._numbers = count(1)

    def request_id(self, wanted: str | None) -> str:
        """`wanted` unless a request of that id is running; else one that is unique among all workers' lives."""
        while wanted is None or wanted in self.visits:
            wanted = f"{self._boot}-{next(self._numbers):x}"
        return wanted

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        """Talk to the control plane while the block runs; then hand over the last records."""
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(self.bus.run()), tasks.create_task(self.lag.run())]
            try:
                yield
                await self._hand_over()
            finally:
                for task in background:
                    task.cancel()
                await self.upstream.aclose()

    async def _hand_over(self) -> None:
        await self.visits.none_left(_LAST_VISITS)  # cancelled ones write their records now
        if not await self.bus.flush(_LAST_ACK):
            _log.warning("no control plane took the last %d records; they are lost", self.recorder.held)

    def _adopt(self, snapshot: Snapshot) -> None:
        self.router.replace(snapshot)
        self.upstream.retain(snapshot.replicas.values())

    def _gauges(self, dropped: int) -> WorkerGauges:
        return WorkerGauges(
            in_flight=dict(self.router.outstanding),
            queued=self.admission.queued,
            loop_lag_s=self.lag.take(),
            records_dropped=dropped,
            rejections=dict(self.admission.rejections),
            retries=dict(self.upstream.retries),
        )


def _limits(settings: GatewaySettings) -> UpstreamLimits:
    return UpstreamLimits(
        connections=settings.max_connections_per_replica,
        connect_timeout=Seconds(settings.connect_timeout_s),
        first_byte_timeout=Seconds(settings.first_byte_timeout_s),
        idle_timeout=Seconds(settings.idle_timeout_s),
    )
