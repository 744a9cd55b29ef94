"""One replica's life: start or take over, serve, fail, wait, start again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

import httpx

from server.clock import Clock
from server.config import EngineSettings, HealthSettings
from server.control.backoff import Backoff
from server.control.board import Board
from server.control.health import HealthWatch
from server.control.memory import MemoryBudget
from server.control.race import first_of, to_the_end
from server.control.readiness import Readiness, told_by_log
from server.control.resolve import Resolved
from server.control.scrape import EngineClient
from server.control.witness import Witnesses
from server.engines import ENGINES, Engine
from server.engines.launchers import LAUNCHERS, Order, Running, TransientStartError
from server.engines.process_tree import narrow, tree
from server.errors import StartError
from server.fleet import EngineState
from server.units import Seconds

__all__ = ["Life", "Surroundings", "Wish"]


_GONE: Final[Mapping[str, Any]] = {
    "url": None,
    "api_key": None,
    "pid": None,
    "adapters": frozenset(),
    "gauges": None,
    "memory_bytes": None,
}
"""What is not known of an engine that does not run."""


class Wish(Enum):
    """What somebody wants of an engine that would otherwise just run."""

    RESTART = "restart"
    """Once its requests have ended."""
    LEAVE = "leave"
    """End for good, once its requests have ended."""
    STOP = "stop"
    """End for good, now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all lives share."""

    board: Board
    clock: Clock
    announce: Callable[[str], None]
    environment: Path
    runtime_dir: Path
    logs: Path
    launcher_pid: int
    environ: Mapping[str, str]
    budget: MemoryBudget
    gpu_turns: Mapping[int, asyncio.Lock]
    """Engines that share a GPU start one after another: each looks at the free memory while it starts."""
    idle: Callable[[str], Coroutine[Any, Any, None]]
    """Waits until no worker has a request at the engine, which is `DRAINING` by then."""
    drain_timeout_s: float
    health: HealthSettings
    witnesses: Witnesses


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    problem: str
    permanent: bool
    served: Seconds | None


class Life:
    """Owns one replica's row on the board. Cancelling `run` leaves the engine running, for the next to take over."""

    def __init__(self, resolved: Resolved, around: Surroundings) -> None:
        self._resolved: Final = resolved
        self._around: Final = around
        self._name: Final = resolved.settings.name
        self._backoff = Backoff(resolved.settings.restart)
        self._wish: Wish | None = None
        self._wished = asyncio.Event()
        self._restarts = 0
        self._served_from: Seconds | None = None
        self.client: EngineClient | None = None
        """Another one in each life of the engine; None while there is none that serves."""
        self.settled: Final = asyncio.Event()
        """Set once what ran before is taken over and was asked once, or nothing is there to take over."""
        self.ended: Final = asyncio.Event()
        """Set at the end of `run`, for whatever reason."""

    def wish(self, wish: Wish) -> None:
        """Interrupts whatever it does, a drain too. STOP is final, and LEAVE all but."""
        if self._wish is not Wish.STOP and not (self._wish is Wish.LEAVE and wish is Wish.RESTART):
            self._wish = wish
        self._wished.set()

    async def run(self, http: httpx.AsyncClient) -> None:
        """Until somebody wishes that it ends; the engine and all it started have ended then."""
        try:
            await self._live(http)
        finally:
            self.ended.set()

    async def keeps(self, wanted: Resolved, environment: Path) -> bool:
        """Whether the engine can run on where these settings hold. They name the same replica."""
        launcher = wanted.settings.launcher
        if launcher != self._resolved.settings.launcher:
            return False
        try:
            return await LAUNCHERS[launcher].keeps(self._order(wanted, environment))
        except StartError:
            return False

    async def _live(self, http: httpx.AsyncClient) -> None:
        while self._wish not in (Wish.STOP, Wish.LEAVE):
            self._wish = None
            self._wished.clear()
            ended, failure = await first_of(self._wished.wait(), self._one_life(http))
            self.settled.set()
            if ended == 0:
                self._backoff.reset()
            else:
                await first_of(self._wished.wait(), self._recover(failure))
            self._restarts += 1
        self._set_state(EngineState.STOPPED, **_GONE)

    async def _one_life(self, http: httpx.AsyncClient) -> _Failure:
        self._served_from = None
        self._set_state(EngineState.PENDING, **_GONE)
        try:
            # What is held only while it starts: a turn on its GPUs, a promise of memory.
            async with contextlib.AsyncExitStack() as turn:
                return await self._start_and_serve(http, turn)
        except StartError as exc:
            return _Failure(problem=str(exc), permanent=not isinstance(exc, TransientStartError), served=None)
        finally:
            self.client = None

    async def _start_and_serve(self, http: httpx.AsyncClient, turn: contextlib.AsyncExitStack) -> _Failure:
        if self._resolved.problem is not None:
            raise StartError(self._resolved.problem)
        adopted, cancelled = await to_the_end(self._adopt(turn))
        if adopted is not None:
            running = adopted
        else:
            if cancelled is not None:
                raise cancelled
            for gpu in self._resolved.place.gpus:
                await turn.enter_async_context(self._around.gpu_turns[gpu])
            running, cancelled = await to_the_end(self._launch(turn))
        try:
            if cancelled is not None:
                raise cancelled
            return await self._serve(http, running, turn)
        except asyncio.CancelledError:
            if self._wish is None:
                running.let_go()
            else:
                await self._drain()
                await running.stop()
            raise

    async def _drain(self) -> None:
        """Let its requests end: until they have, for as long as the settings say, or until the next wish."""
        if self._wish is Wish.STOP or self._served_from is None:
            return
        self._wished.clear()
        self._set_state(EngineState.DRAINING)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._around.drain_timeout_s):
                await first_of(self._around.idle(self._name), self._wished.wait())

    async def _adopt(self, turn: contextlib.AsyncExitStack) -> Running | None:
        """Take over what runs already. It waits for no turn: it may be serving."""
        running = await LAUNCHERS[self._resolved.settings.launcher].adopt(self._own_order())
        if running is None:
            if self._resolved.place.kind != "remote":
                self.settled.set()
            return None
        for gpu in self._resolved.place.gpus:
            if not self._around.gpu_turns[gpu].locked():  # it may be starting still: the others had better wait
                await turn.enter_async_context(self._around.gpu_turns[gpu])
        self._restarts = running.restarts
        self._announce(f"taken over, process {running.pid}")
        self._note_start(running)
        return running

    async def _launch(self, turn: contextlib.AsyncExitStack) -> Running:
        self._set_state(EngineState.STARTING)
        turn.enter_context(self._around.budget.promise(self._resolved.memory_needed))
        running = await LAUNCHERS[self._resolved.settings.launcher].launch(self._own_order())
        self._note_start(running)
        return running

    def _note_start(self, running: Running) -> None:
        self._set_state(
            EngineState.STARTING,
            url=running.url,
            api_key=running.api_key,
            pid=running.pid,
            restarts=self._restarts,
            log_path=None if running.log is None else str(running.log),
        )

    async def _serve(self, http: httpx.AsyncClient, running: Running, turn: contextlib.AsyncExitStack) -> _Failure:
        client = EngineClient(http, self._engine, running.url, running.api_key)
        try:
            first, end = await first_of(running.wait(), self._work(client, running, turn))
        except StartError as exc:  # not ready in time
            await running.stop()
            return _Failure(problem=str(exc), permanent=False, served=None)
        if first == 1:
            self._announce(f"{end} It is ended and started again.")
            await running.stop()
            ejected_at = self._around.board.get(self._name).since
            return _Failure(problem=end, permanent=False, served=self._served_until(ejected_at))
        problem, permanent = await asyncio.to_thread(
            told_by_log, self._engine, running, end, was_ready=self._served_from is not None
        )
        return _Failure(problem=problem, permanent=permanent, served=self._served_until(self._around.clock.monotonic()))

    def _served_until(self, end: Seconds) -> Seconds | None:
        return None if self._served_from is None else Seconds(end - self._served_from)

    async def _work(self, client: EngineClient, running: Running, turn: contextlib.AsyncExitStack) -> str:
        """From the first poll on; ends when it is hopeless, says why. Raises `StartError` if it never gets ready."""
        if running.pid is not None:
            await self._become_ready(client, running)
        await turn.aclose()
        self.client = client
        return await HealthWatch(
            board=self._around.board,
            name=self._name,
            client=client,
            probe=self._engine.probe(self._resolved.upstream_model, self._resolved.settings.task),
            pid=running.pid,
            gpus=self._resolved.place.gpus,
            checked=self.settled.set,
            clock=self._around.clock,
            settings=self._around.health,
            witness=self._around.witnesses[self._name],
        ).until_hopeless()

    async def _become_ready(self, client: EngineClient, running: Running) -> None:
        start = Readiness(
            resolved=self._resolved,
            engine=self._engine,
            running=running,
            client=client,
            clock=self._around.clock,
            announce=self._around.announce,
            not_yet=self.settled.set,
        )
        told = await start.wait()
        if self._resolved.cores and running.pid is not None:
            await asyncio.to_thread(narrow, tree(running.pid), self._resolved.cores)
        self._served_from = self._around.clock.monotonic()
        self.client = client
        self._set_state(EngineState.READY, **told)
        self._announce(f"ready, {start.elapsed():.0f} s after its start, serves {self._resolved.full_id}")

    async def _recover(self, failure: _Failure) -> None:
        """Wait as long as the settings say; for ever if it has been given up."""
        wait = None if failure.permanent else self._backoff.failed(served=failure.served)
        if wait is None:
            self._set_state(EngineState.FAILED, problem=failure.problem, **_GONE)
            self._announce(f"given up. {failure.problem}")
            await self._wished.wait()
            self._backoff.reset()
            return
        self._set_state(EngineState.BACKOFF, problem=failure.problem, **_GONE)
        self._announce(f"{failure.problem}\n  It starts again in {wait:.0f} s.")
        await asyncio.sleep(wait)

    def _own_order(self) -> Order:
        return self._order(self._resolved, self._around.environment)

    def _order(self, wanted: Resolved, environment: Path) -> Order:
        settings, around = wanted.settings, self._around
        return Order(
            name=self._name,
            engine=ENGINES[settings.kind],
            spec=wanted.spec(environment),
            url=settings.url,
            api_key=self._key(settings),
            launcher_pid=around.launcher_pid,
            start_cores=tuple(sorted(self._resolved.start_cores)),
            state_dir=around.runtime_dir / "engines",
            log=around.logs / f"{self._name}.log",
            restarts=self._restarts,
        )

    def _key(self, settings: EngineSettings) -> str | None:
        if settings.api_key_env is None:
            return None
        if settings.api_key_env not in self._around.environ:
            raise StartError(f"The environment variable {settings.api_key_env} (`api_key_env`) is not set. Export it.")
        key = self._around.environ[settings.api_key_env].strip()
        if not key or not key.isascii() or not key.isprintable():
            raise StartError(f"{settings.api_key_env} (`api_key_env`) holds no key: it is empty, or not plain ASCII.")
        return key

    @property
    def _engine(self) -> Engine:
        return ENGINES[self._resolved.settings.kind]

    def _set_state(self, state: EngineState, **changes: Any) -> None:
        self._around.board.set(self._name, state=state, **{"problem": None, **changes})

    def _announce(self, text: str) -> None:
        self._around.announce(f"{self._name}: {text}")
