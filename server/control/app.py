"""The control plane: who is started, who feeds whom, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec
import uvicorn

from server.clock import Clock
from server.config import Config
from server.config.paths import next_config_path
from server.console import EXIT_NOTHING_TO_SERVE, say
from server.control.adapters import Adapters
from server.control.admin import create_admin
from server.control.bus import Bus
from server.control.doors import guarded_kinds
from server.control.key_book import KeyBook
from server.control.keys import KeyStore, store_path
from server.control.limits import Leases
from server.control.live import Feed, FeedSources
from server.control.metering import Metering
from server.control.occupancy import Occupancy
from server.control.routing_table import Placement, RoutingRules, build_snapshot
from server.control.runs import Runs, runs_path
from server.control.supervisor import Supervisor
from server.control.views import carbon_view, status_view
from server.fleet import EngineState
from server.loop_lag import LoopLag
from server.telemetry.exporter import Exposition
from server.telemetry.labels import LabelCaps
from server.telemetry.log import RequestLog
from server.telemetry.sources import AdapterLoad, Sources
from server.units import Seconds
from server.wire import Batch, Hello, News, ToWorker

__all__ = ["ControlPlane"]

_SETTLE_BOUND_S: Final = 10.0
_LAST_WORD: Final = Seconds(2.0)
"""For workers to hang up after a hand-over."""
_LAG_EVERY: Final = Seconds(1.0)
_TABLES_A_SECOND: Final = 1000
"""Far more than there ever are: no control plane's numbers reach those of the one after it."""


class _End(Enum):
    STOPPED = "stopped"
    HOPELESS = "hopeless"
    HANDED_OVER = "handed over"


class ControlPlane:
    """Everything that runs beside the path of requests, in one process and one event loop."""

    def __init__(self, config: Config, *, runtime_dir: Path, launcher_pid: int, clock: Clock) -> None:
        self.config = config
        self.clock = clock
        self.version = version("wattgate")
        self.workers: dict[str, Hello] = {}
        logs = config.state_dir / "logs"
        logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._runtime_dir = runtime_dir
        self._occupancy = Occupancy()
        self.supervisor = Supervisor(
            config,
            runtime_dir=runtime_dir,
            launcher_pid=launcher_pid,
            clock=clock,
            announce=say,
            idle=self._occupancy.wait_idle,
        )
        self.adapters = Adapters(config, self.supervisor, launcher_pid=launcher_pid, clock=clock, announce=say)
        store = KeyStore(store_path(config.state_dir), clock)
        self.keys = KeyBook(store, clock, always_closed=guarded_kinds(config), changed=self._keys_changed)
        self._leases = Leases(clock, self._tell)
        self._bus: Bus | None = None
        self._snapshots = 0
        self._first_number = int(clock.monotonic() * _TABLES_A_SECOND)
        caps = LabelCaps(config.telemetry, clock)
        self.metering = Metering(
            config, replicas=self.supervisor.replicas, caps=caps, clock=clock, publish=self._publish_news
        )
        self.runs = Runs(runs_path(config.state_dir), clock)
        sources = Sources(
            traffic=self.metering.traffic,
            replicas=self.supervisor.replicas,
            version=self.version,
            energy=self.metering.energy.snapshot,
            adapters=lambda: self._loads,
            samples=(*self.metering.samples, self.runs.samples),
        )
        self.live = Feed(self._live_sources(), clock)
        self._exposition = Exposition(sources, caps=caps, clock=clock)
        self._loads: list[AdapterLoad] = []
        self._lost_lines_said = False
        self._log = RequestLog(logs / "requests.jsonl", clock)
        self._lag = LoopLag(clock)

    def _live_sources(self) -> FeedSources:
        metering = self.metering
        return FeedSources(
            traffic=metering.traffic.totals,
            energy=metering.energy.snapshot,
            status=lambda: status_view(self),
            carbon=lambda: carbon_view(metering.carbon.now(), self.config.carbon.pue),
            table=lambda: metering.efficiency.table(["variant"]),
        )

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type, as the scraper's Accept header asks."""
        self._loads = self._adapter_loads()  # the adapters belong to the loop, not to the thread that renders
        # Rendering thousands of lines takes milliseconds: not on the loop that meters and takes records.
        return await asyncio.to_thread(self._exposition.render, accept)

    async def run(
        self, listener: socket.socket, bus_listener: socket.socket, *, ready: Callable[[], None] = lambda: None
    ) -> int:
        """Serve until a signal or until nothing can be served; returns the exit status.

        SIGTERM ends the engines, too. SIGHUP lets them run, but for those that the next control plane would not take
        over as they are. `ready` is called with the first routing table.
        """
        stop, leave = asyncio.Event(), asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, leave.set)
        await self.keys.load()
        bus = self._bus = Bus(
            bus_listener,
            take=self._take,
            joined=self._joined,
            left=self._left,
            lease_wanted=self._leases.wanted,
        )
        await self.metering.begin(bus, self.version)
        server = _Server(uvicorn.Config(create_admin(self), log_config=None, access_log=False, lifespan="off"))
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self.supervisor.run(), name="supervisor"),
                group.create_task(self.adapters.run(), name="adapters"),
                group.create_task(bus.serve(), name="bus"),
                group.create_task(self._publish(ready), name="publish"),
                group.create_task(self.keys.run(), name="keys"),
                group.create_task(self.metering.run(), name="metering"),
                group.create_task(self._watch_lag(), name="lag"),
                group.create_task(self.live.run(), name="live"),
                group.create_task(server.serve(sockets=[listener]), name="admin"),
            ]
            end = await self._until_over(stop, leave)
            if end is _End.HANDED_OVER:
                bus.take_no_more()
                await self.metering.flush(_LAST_WORD)
                await bus.hand_over(_LAST_WORD)
            else:
                await self.supervisor.stop()
            for task in tasks:
                task.cancel()
        await self.metering.end()
        return EXIT_NOTHING_TO_SERVE if end is _End.HOPELESS else 0

    async def _until_over(self, stop: asyncio.Event, leave: asyncio.Event) -> _End:
        ends = {
            asyncio.create_task(stop.wait()): _End.STOPPED,
            asyncio.create_task(self._until_hopeless()): _End.HOPELESS,
            asyncio.create_task(self._make_way(leave)): _End.HANDED_OVER,
        }
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            first = next(task for task in ends if task.done())
            first.result()
            return ends[first]
        finally:
            for task in ends:
                task.cancel()

    async def _until_hopeless(self) -> None:
        seen = 0
        while not all(replica.state is EngineState.FAILED for replica in self.supervisor.replicas()):
            seen = await self.supervisor.wait_change(seen)
        say("every engine has failed, there is nothing to serve:")
        for replica in self.supervisor.replicas():
            say(f"{replica.name}: {replica.problem}")

    async def _make_way(self, leave: asyncio.Event) -> None:
        """Once told, end the engines that the next configuration does not want as they are."""
        await leave.wait()
        path = next_config_path(self._runtime_dir)
        if path.exists():
            for name in await self.supervisor.make_way(Config.model_validate_json(path.read_bytes())):
                say(f"{name}: ended, the new configuration has no such engine or has it otherwise")

    async def _publish(self, ready: Callable[[], None]) -> None:
        """Send the routing table whenever something in it may have changed.

        The first waits until running engines were found again: workers serve on with the table of the control plane
        before, and a table without those engines would take them away.
        """
        await self.supervisor.wait_settled(_SETTLE_BOUND_S)
        await self.adapters.wait_aligned(_SETTLE_BOUND_S)
        self._publish_now()
        ready()
        seen = 0
        while True:
            seen = await self.supervisor.wait_change(seen)
            self._publish_now()

    def _publish_now(self) -> None:
        assert self._bus is not None
        self._snapshots += 1
        placements = [
            Placement(name=status.name, model=status.model, engines=status.engines) for status in self.adapters.status()
        ]
        rules = RoutingRules.of(self.config)
        number = self._first_number + self._snapshots
        table = build_snapshot(number, self.supervisor.replicas(), placements, rules=rules)
        self._occupancy.published(table)
        self._bus.publish(msgspec.structs.replace(table, keys=self.keys.grants()))

    def _publish_news(self, news: News) -> None:
        if self._bus is not None:
            self._bus.publish(news)

    def _keys_changed(self) -> None:
        self._leases.replace((self.keys.grants() or {}).values())
        if self._snapshots:  # else the first is still to come, and will have them
            self._publish_now()

    def _tell(self, worker: Hello, message: ToWorker) -> None:
        if self._bus is not None:
            self._bus.tell(worker, message)

    async def _watch_lag(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._lag.run())
            while True:
                await asyncio.sleep(_LAG_EVERY)
                self.metering.traffic.take_lags("control", self._lag.take())

    def _take(self, batch: Batch, worker: Hello) -> bool:
        self._occupancy.take(batch, worker)
        new, held = self.metering.take(batch, worker)
        if new:
            self.supervisor.take(batch, worker)
            self._log.write(batch.records)
            self._say_if_lines_are_lost()
        return held

    def _say_if_lines_are_lost(self) -> None:
        if self._log.lines_lost and not self._lost_lines_said:
            self._lost_lines_said = True
            say("the request log cannot be written (is the disk full?); its lines are lost, serving goes on")

    def _joined(self, worker: Hello) -> None:
        self.workers[worker.boot] = worker
        self._occupancy.joined(worker)
        self._leases.joined(worker)

    def _left(self, worker: Hello) -> None:
        self.workers.pop(worker.boot, None)
        self._occupancy.left(worker)
        self._leases.left(worker)
        self.metering.left(worker)
        self.supervisor.left(worker)

    def _adapter_loads(self) -> list[AdapterLoad]:
        return [
            AdapterLoad(
                engine=engine, adapter=status.name, loaded=placed.state == "loaded", load_s=_seconds(placed.load_s)
            )
            for status in self.adapters.status()
            for engine, placed in status.replicas.items()
            if engine in status.engines
        ]


class _Server(uvicorn.Server):
    """uvicorn, without its signal handlers: `ControlPlane.run` decides when it ends."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _seconds(value: float | None) -> Seconds | None:
    return None if value is None else Seconds(value)
