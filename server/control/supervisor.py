"""Keeps all replicas as the configuration wants them, and knows how they are."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx

from server.clock import Clock
from server.config import Config
from server.control.board import Board
from server.control.cores import allowed_cores
from server.control.devices import Gpu, cpu_abilities, find_gpus
from server.control.life import Life, Surroundings, Wish
from server.control.memory import MemoryBudget
from server.control.preflight import available_memory
from server.control.resolve import Resolved, resolve_engines
from server.control.scrape import EngineClient
from server.control.witness import Witnesses
from server.engines.launchers import LAUNCHERS
from server.errors import ConflictError, NotFoundError
from server.fleet import EngineState, Replica
from server.wire import Batch, Hello

__all__ = ["Supervisor"]

_STOP_TIMEOUT_S: Final = 30.0
_CONNECTIONS: Final = 256


class Supervisor:
    """The fleet. Cancelling `run` leaves local engines running for the next supervisor; `stop` ends them."""

    def __init__(  # noqa: PLR0913  # what surrounds it is given, not taken
        self,
        config: Config,
        *,
        runtime_dir: Path,
        launcher_pid: int,
        clock: Clock,
        announce: Callable[[str], None],
        environ: Mapping[str, str] | None = None,
        gpus: Sequence[Gpu] | None = None,
        idle: Callable[[str], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """Reads the checkpoints' headers; starts nothing.

        `environ` holds the keys that `api_key_env` names. `gpus` are those of this machine if not given. `idle` waits
        until nobody has a request at an engine that is `DRAINING`; None: nobody ever has one.
        """
        environ = os.environ if environ is None else environ  # noqa: TID251  # for `api_key_env` and the GPUs offered
        gpus = find_gpus(environ) if gpus is None else gpus
        self._gpus = gpus
        self._resolved = resolve_engines(config, allowed=allowed_cores(launcher_pid), gpus=gpus, cpu=cpu_abilities())
        self._board = Board((_row(engine, clock) for engine in self._resolved.values()), clock)
        self._announce = announce
        self._around = Surroundings(
            board=self._board,
            clock=clock,
            announce=announce,
            environment=config.environments.engine,
            runtime_dir=runtime_dir,
            logs=config.state_dir / "logs",
            launcher_pid=launcher_pid,
            environ=environ,
            budget=MemoryBudget(available_memory),
            idle=idle or _nobody_waits,
            drain_timeout_s=config.gateway.drain_timeout_s,
            health=config.health,
            witnesses=Witnesses(self._resolved, clock),
            gpu_turns={index: asyncio.Lock() for engine in self._resolved.values() for index in engine.place.gpus},
        )
        self._lives = {name: Life(engine, self._around) for name, engine in self._resolved.items()}
        self._ended = asyncio.Event()
        self._ended.set()

    async def run(self) -> None:
        """Until `stop`. Every task is owned here."""
        self._ended.clear()
        limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=len(self._lives))
        try:
            # A proxy from the environment must not come between the gateway and engines on this machine.
            async with httpx.AsyncClient(limits=limits, trust_env=False) as http:
                await self._end_strangers()
                async with asyncio.TaskGroup() as group:
                    for life in self._lives.values():
                        group.create_task(life.run(http))
        finally:
            self._ended.set()

    def replicas(self) -> list[Replica]:
        """All replicas as they stand now, in the configuration's order."""
        return self._board.replicas()

    async def wait_change(self, seen: int) -> int:
        """Until something has changed since version `seen` (0: at once); the version now. Gauges do not count."""
        return await self._board.wait_change(seen)

    def settled(self) -> bool:
        """Whether each replica is found: taken over and asked once, or known to be started anew.

        One that runs elsewhere is found once its first health check was answered, or was not.
        """
        return all(life.settled.is_set() for life in self._lives.values())

    async def wait_settled(self, bound_s: float) -> None:
        """Until it is settled, or the bound has passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(bound_s):
                for life in self._lives.values():
                    await life.settled.wait()

    def take(self, batch: Batch, worker: Hello) -> None:
        """What a worker saw at the replicas, each batch once."""
        self._around.witnesses.take(batch, worker)

    def left(self, worker: Hello) -> None:
        """The worker has gone."""
        self._around.witnesses.left(worker)

    def resolved(self) -> Mapping[str, Resolved]:
        """What each replica's settings mean on this machine."""
        return self._resolved

    def client(self, name: str) -> EngineClient | None:
        """A way to ask the replica; None while it does not serve. Another object in each life of the engine."""
        return self._lives[name].client

    def note_adapters(self, name: str, adapters: frozenset[str]) -> None:
        """Say which adapters the replica has loaded."""
        self._board.set(name, adapters=adapters)

    async def restart(self, name: str) -> None:
        """End the engine and start it anew; counters of failures begin again. Returns at once."""
        if name not in self._lives:
            raise NotFoundError(f"There is no engine {name!r}. There are: {', '.join(self._lives)}.")
        if self._resolved[name].settings.launcher == "external":
            raise ConflictError(f"Engine {name!r} runs elsewhere; restart it there.")
        self._lives[name].wish(Wish.RESTART)

    async def make_way(self, config: Config) -> list[str]:
        """End, once their requests have ended, the engines that `config` has not, or has otherwise; says which."""
        wanted = resolve_engines(
            config, allowed=allowed_cores(self._around.launcher_pid), gpus=self._gpus, cpu=cpu_abilities()
        )
        leaving = []
        for name, life in self._lives.items():
            if name not in wanted or not await life.keeps(wanted[name], config.environments.engine):
                leaving.append(name)
                life.wish(Wish.LEAVE)
        for name in leaving:
            await self._lives[name].ended.wait()
        return leaving

    async def stop(self) -> None:
        """End all engines; when this returns `run` has returned, or 30 s have passed."""
        for life in self._lives.values():
            life.wish(Wish.STOP)
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self._ended.wait()
        except TimeoutError:
            self._announce(f"engines did not end within {_STOP_TIMEOUT_S:.0f} s; the launcher will end them by force")

    async def _end_strangers(self) -> None:
        """Engines of an earlier configuration that still run."""
        known = frozenset(self._lives)
        for launcher in LAUNCHERS.values():
            for name in await launcher.end_strangers(self._around.runtime_dir / "engines", known):
                self._announce(f"{name}: ended, it is no longer in the configuration")


async def _nobody_waits(_engine: str) -> None:
    """Where no worker is, none has a request."""


def _row(engine: Resolved, clock: Clock) -> Replica:
    settings = engine.settings
    return Replica(
        name=settings.name,
        model=settings.model,
        variant=engine.variant,
        precision=engine.precision,
        task=settings.task,
        kind=settings.kind,
        launcher=settings.launcher,
        state=EngineState.PENDING,
        since=clock.monotonic(),
        url=settings.url,
        api_key=None,
        upstream_model=engine.upstream_model,
        max_model_len=None,
        adapters=frozenset(),
        restarts=0,
        pid=None,
        device=str(engine.place),
        cores=engine.cores,
        card=engine.card,
        engine_version=None,
        problem=None,
        log_path=None,
        memory_bytes=None,
        gauges=None,
    )
