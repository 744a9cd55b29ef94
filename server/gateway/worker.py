"""A worker: its stages, what it holds, and its tasks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.clock import Clock
from server.config.settings import GatewaySettings
from server.gateway.admission import Admission
from server.gateway.auth import Keyring
from server.gateway.budgets import TenantBudgets
from server.gateway.bus import FLUSH_EVERY, BusClient
from server.gateway.limits import Limits
from server.gateway.prices import PriceList
from server.gateway.records import Recorder
from server.gateway.retry import RetryBudget
from server.gateway.routing.router import Router
from server.gateway.sightings import Sightings
from server.gateway.upstream.http1 import Http1Upstream, UpstreamLimits
from server.gateway.upstream.upstream import Upstream
from server.gateway.visits import Visits
from server.loop_lag import LoopLag
from server.units import Seconds
from server.wire import PROTOCOL_VERSION, Budgets, Hello, LeaseWanted, News, Prices, Snapshot, WorkerGauges

__all__ = ["Identity", "Worker"]

_log = logging.getLogger("wattgate.gateway")

# Together with uvicorn's ticks less than the 5 s that the launcher grants beyond the drain.
_LAST_ACK: Final = Seconds(3.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which worker this is."""

    slot: int
    pid: int
    boot: str
    """A random name of this life."""


class Worker:
    """Everything that requests of one worker share. None of it is global: two workers in a process are two workers."""

    def __init__(
        self,
        settings: GatewaySettings,
        identity: Identity,
        *,
        bus: Path,
        clock: Clock,
        flush_every: Seconds = FLUSH_EVERY,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.visits = Visits(identity.boot)
        self.keys = Keyring()
        self.budgets = TenantBudgets(clock)
        self.prices = PriceList()
        self.limits = Limits(workers=settings.workers, clock=clock, tell=self._tell)
        self.admission = Admission(
            max_in_flight=settings.max_in_flight,
            max_in_flight_bytes=settings.max_in_flight_bytes,
            max_in_flight_per_tenant=settings.max_in_flight_per_tenant,
            max_queue=settings.max_queue,
            queue_timeout=Seconds(settings.queue_timeout_s),
            clock=clock,
        )
        self.router = Router(clock)
        self.router.on_room = self.admission.look_again
        self.retries = RetryBudget(clock)
        self.sightings = Sightings(clock, self.router.avoided)
        self.upstream: Upstream = Http1Upstream(_limits(settings), clock=clock)
        self.lag = LoopLag(clock)
        self.recorder = Recorder(max_backlog=settings.max_record_backlog, clock=clock, gauges=self._gauges)
        hello = Hello(version=PROTOCOL_VERSION, slot=identity.slot, pid=identity.pid, boot=identity.boot)
        self.bus = BusClient(bus, hello, self.recorder, on_news=self._hear, leases=self.limits, flush_every=flush_every)
        self.informed = asyncio.Event()
        """Set with the first routing table."""

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
        self.visits.cancel()  # what the drain did not finish; their records are written now
        if not await self.bus.flush(_LAST_ACK):
            _log.warning("no control plane took the last %d records; they are lost", self.recorder.held_records)

    def _tell(self, message: LeaseWanted) -> None:
        self.bus.tell(message)

    def _hear(self, news: News) -> None:
        if isinstance(news, Snapshot):
            self._adopt(news)
        elif isinstance(news, Prices):
            self.prices.replace(news)
        elif isinstance(news, Budgets):
            self.budgets.replace(news)

    def _adopt(self, snapshot: Snapshot) -> None:
        self.keys.replace(snapshot.keys)
        self.limits.replace(snapshot.keys)
        self.router.replace(snapshot)
        self.sightings.retain(set(snapshot.replicas))
        self.upstream.retain(snapshot.replicas.values())
        self.informed.set()

    def _gauges(self, dropped: int) -> WorkerGauges:
        return WorkerGauges(
            in_flight=dict(self.router.outstanding),
            queued=self.admission.queued,
            loop_lags_s=self.lag.take(),
            records_dropped=dropped,
            rejections={**self.admission.rejections, **self.limits.rejections},
            retries={**self.upstream.retries, **self.retries.spent},
            seen=self.sightings.take(),
            table=self.router.snapshot.version if self.router.snapshot else 0,
        )


def _limits(settings: GatewaySettings) -> UpstreamLimits:
    return UpstreamLimits(
        connections=settings.max_connections_per_replica,
        connect_timeout=Seconds(settings.connect_timeout_s),
        first_byte_timeout=Seconds(settings.first_byte_timeout_s),
        whole_answer_timeout=Seconds(settings.whole_answer_timeout_s),
        idle_timeout=Seconds(settings.idle_timeout_s),
    )
