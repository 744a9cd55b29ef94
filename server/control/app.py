"""The control plane: who is started, who feeds whom, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

import uvicorn

from server.clock import Clock
from server.config import Config
from server.control.adapters import Adapters
from server.control.admin import create_admin
from server.control.bus import Bus
from server.control.routing_table import Placement, build_snapshot
from server.control.supervisor import Supervisor
from server.energy import EnergyAccountant, ProcessTable, discover
from server.fleet import EngineState
from server.telemetry.exporter import Exposition
from server.telemetry.labels import LabelCaps
from server.telemetry.log import RequestLog
from server.telemetry.sources import AdapterLoad, Sources
from server.telemetry.traffic import Traffic
from server.units import Seconds
from server.wire import Batch, Hello

__all__ = ["ControlPlane"]

_SETTLE_BOUND_S: Final = 10.0

_EXIT_STOPPED: Final = 0
_EXIT_NOTHING_TO_SERVE: Final = 70
"""Understood by server/launcher.py: do not start another."""


class ControlPlane:
    """Everything that runs beside the path of requests, in one process and one event loop."""

    def __init__(self, config: Config, *, runtime_dir: Path, launcher_pid: int, clock: Clock) -> None:
        self.config = config
        self.clock = clock
        self.version = version("wattgate")
        self.workers: dict[str, Hello] = {}
        logs = config.state_dir / "logs"
        logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.supervisor = Supervisor(
            config, runtime_dir=runtime_dir, launcher_pid=launcher_pid, clock=clock, announce=_announce
        )
        self.adapters = Adapters(config, self.supervisor, launcher_pid=launcher_pid, clock=clock, announce=_announce)
        caps = LabelCaps(config.telemetry, clock)
        self.traffic = Traffic(caps)
        processes = ProcessTable()
        self.energy = EnergyAccountant(
            discover(config.energy, clock=clock, processes=processes),
            replicas=self.supervisor.replicas,
            clock=clock,
            settings=config.energy,
            caps=caps,
            processes=processes,
        )
        sources = Sources(
            traffic=self.traffic,
            replicas=self.supervisor.replicas,
            version=self.version,
            energy=self.energy.snapshot,
            adapters=lambda: self._loads,
        )
        self._exposition = Exposition(sources, caps=caps, clock=clock)
        self._loads: list[AdapterLoad] = []
        self._lost_lines_said = False
        self._log = RequestLog(logs / "requests.jsonl", clock)

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type, as the scraper's Accept header asks."""
        self._loads = self._adapter_loads()  # the adapters belong to the loop, not to the thread that renders
        # Rendering thousands of lines takes milliseconds: not on the loop that meters and takes records.
        return await asyncio.to_thread(self._exposition.render, accept)

    async def run(self, listener: socket.socket, bus_listener: socket.socket) -> int:
        """Serve until SIGTERM or until nothing can be served; returns the exit status."""
        told = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
        bus = Bus(bus_listener, take=self._take, joined=self._joined, left=self._left)
        server = _Server(uvicorn.Config(create_admin(self), log_config=None, access_log=False, lifespan="off"))
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self.supervisor.run(), name="supervisor"),
                group.create_task(self.adapters.run(), name="adapters"),
                group.create_task(bus.serve(), name="bus"),
                group.create_task(self._publish(bus), name="publish"),
                group.create_task(self._meter(), name="meter"),
                group.create_task(server.serve(sockets=[listener]), name="admin"),
            ]
            status = await self._until_over(told)
            await self.supervisor.stop()
            for task in tasks:
                task.cancel()
        return status

    async def _until_over(self, told: asyncio.Event) -> int:
        """Until SIGTERM (0), or until every engine has been given up (70)."""
        stop = asyncio.create_task(told.wait())
        hopeless = asyncio.create_task(self._until_hopeless())
        try:
            await asyncio.wait({stop, hopeless}, return_when=asyncio.FIRST_COMPLETED)
            return _EXIT_STOPPED if stop.done() else _EXIT_NOTHING_TO_SERVE
        finally:
            stop.cancel()
            hopeless.cancel()

    async def _until_hopeless(self) -> None:
        seen = 0
        while not all(replica.state is EngineState.FAILED for replica in self.supervisor.replicas()):
            seen = await self.supervisor.wait_change(seen)
        _announce("every engine has failed, there is nothing to serve:")
        for replica in self.supervisor.replicas():
            _announce(f"{replica.name}: {replica.problem}")

    async def _publish(self, bus: Bus) -> None:
        """Send the routing table whenever something in it may have changed.

        The first waits until running engines were found again: workers serve on with the table of the control plane
        before, and a table without those engines would take them away.
        """
        await self.supervisor.wait_settled(_SETTLE_BOUND_S)
        await self.adapters.wait_aligned(_SETTLE_BOUND_S)
        seen = number = 0
        while True:
            number += 1
            placements = [
                Placement(name=status.name, model=status.model, engines=status.engines)
                for status in self.adapters.status()
            ]
            policy = self.config.routing.between_replicas
            bus.publish(build_snapshot(number, self.supervisor.replicas(), placements, policy=policy))
            seen = await self.supervisor.wait_change(seen)

    async def _meter(self) -> None:
        while True:
            await asyncio.sleep(self.config.energy.interval_s)
            for request in self.energy.tick():
                self.traffic.take_energy(request.id, request.labels, request.energy)

    def _take(self, batch: Batch, worker: Hello) -> None:
        if self.traffic.take(batch, worker):
            self.energy.take(batch, worker)
            self._log.write(batch.records)
            self._say_if_lines_are_lost()

    def _say_if_lines_are_lost(self) -> None:
        if self._log.lines_lost and not self._lost_lines_said:
            self._lost_lines_said = True
            _announce("the request log cannot be written (is the disk full?); its lines are lost, serving goes on")

    def _joined(self, worker: Hello) -> None:
        self.workers[worker.boot] = worker

    def _left(self, worker: Hello) -> None:
        self.workers.pop(worker.boot, None)
        self.traffic.left(worker)
        self.energy.left(worker)

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


def _announce(message: str) -> None:
    sys.stderr.write(f"wattgate: {message}\n")
    sys.stderr.flush()
