"""A fleet of scripted engines that are real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from server.clock import SystemClock
from server.config import Config
from server.config.load import parse_config
from server.control.adapters import Adapters
from server.control.devices import Gpu
from server.control.supervisor import Supervisor
from server.fleet import EngineState, Replica
from tests.fakes import vllm_process
from tests.fakes.safetensors_file import write_checkpoint, write_int8

BOUND_S = 30.0


class FleetStage:
    """Folders, a configuration and what was announced."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.script = root / "script"
        self.runtime = root / "run"
        self.said: list[str] = []
        vllm_process.install(root / "env", self.script)
        write_checkpoint(root / "bf16")
        write_int8(root / "int8")

    def config(self, *engines: dict[str, Any], adapters: tuple[dict[str, Any], ...] = (), **more: Any) -> Config:
        """Engines default to `demo` in bf16 with quick restarts."""
        data = {
            "state_dir": str(self.root / "state"),
            "environments": {"engine": str(self.root / "env")},
            "engines": [self._engine(**engine) for engine in engines or ({},)],
            "adapters": list(adapters),
            **more,
        }
        return parse_config(data, source=self.root / "wattgate.yaml", environ={})

    def _engine(self, **changes: Any) -> dict[str, Any]:
        quick = {"backoff_s": 0.01, "max_backoff_s": 0.02, "give_up_after": 2}
        engine = {
            "name": "demo-bf16",
            "model": "demo",
            "checkpoint": "bf16",
            "device": "cpu",
            "options": {"kv_cache_gib": 0.001},
            "restart": quick,
        }
        return {**engine, **changes}

    def supervisor(
        self,
        config: Config,
        environ: dict[str, str] | None = None,
        runtime: str = "run",
        gpus: Sequence[Gpu] | None = None,
        idle: Callable[[str], Coroutine[Any, Any, None]] | None = None,
    ) -> Supervisor:
        return Supervisor(
            config,
            runtime_dir=self.root / runtime,
            launcher_pid=os.getpid(),
            clock=SystemClock(),
            announce=self.said.append,
            environ=environ or {},
            gpus=gpus,
            idle=idle,
        )

    def adapters(self, config: Config, supervisor: Supervisor) -> Adapters:
        return Adapters(config, supervisor, launcher_pid=os.getpid(), clock=SystemClock(), announce=self.said.append)

    def direct(self, what: str, text: str = "", engine: str = "demo_bf16") -> Path:
        """Leave a file for the scripted engine; see tests/fakes/vllm_process.py."""
        path = self.script / f"{engine}.{what}"
        path.write_text(text)
        return path

    def starts(self, engine: str = "demo_bf16") -> list[int]:
        path = self.script / f"{engine}.starts"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def grandchild(self, engine: str = "demo_bf16") -> int:
        return int((self.script / f"{engine}.grandchild").read_text())

    def calls(self, engine: str = "demo_bf16") -> list[list[str]]:
        path = self.script / f"{engine}.calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@contextlib.asynccontextmanager
async def running(supervisor: Supervisor, *others: Adapters, stop: bool = True) -> AsyncIterator[None]:
    """Run a supervisor (and adapters) while the block lasts; then stop its engines, or leave them running."""
    tasks = [asyncio.create_task(supervisor.run()), *(asyncio.create_task(other.run()) for other in others)]
    try:
        yield
    finally:
        if stop:
            await supervisor.stop()
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


async def until(supervisor: Supervisor, condition: Callable[[Replica], bool], name: str = "demo-bf16") -> Replica:
    """The replica, once it is so."""
    seen = 0
    async with asyncio.timeout(BOUND_S):
        while True:
            replica = next(replica for replica in supervisor.replicas() if replica.name == name)
            if condition(replica):
                return replica
            seen = await supervisor.wait_change(seen)


def ready(replica: Replica) -> bool:
    return replica.state is EngineState.READY


def failed(replica: Replica) -> bool:
    return replica.state is EngineState.FAILED


def gone(pid: int) -> bool:
    """Whether the process ends within the bound; woken by its end."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(BOUND_S * 1000))
    finally:
        os.close(pidfd)


def alive(pid: int) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return not poll.poll(0)
    finally:
        os.close(pidfd)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[FleetStage]:
    """Scripted engines; every one of them must have ended by the end of the test."""
    fleet = FleetStage(tmp_path)
    yield fleet
    for path in [*fleet.script.glob("*.starts"), *fleet.script.glob("*.grandchild")]:
        for pid in path.read_text().split():
            assert gone(int(pid)), f"{path.name}: process {pid} is still there"
