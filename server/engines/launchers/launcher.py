"""The contract of a launcher: how an engine comes to run somewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from server.engines.engine import Engine, StartSpec
from server.errors import StartError
from server.units import Seconds

__all__ = ["Exit", "Launcher", "Order", "Running", "TransientStartError"]


class TransientStartError(StartError):
    """The same start may go well a little later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How an engine ended; both None: nobody saw it."""

    code: int | None
    signal: int | None

    def __str__(self) -> str:
        if self.signal is not None:
            return f"by signal {self.signal}"
        return "unseen" if self.code is None else f"with status {self.code}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to run, and where its files go."""

    name: str
    engine: Engine
    spec: StartSpec
    url: str | None
    """Where it runs already, for launchers that start nothing."""
    api_key: str | None
    """The key for `url`."""
    launcher_pid: int
    """The process with which every engine must end."""
    start_cores: tuple[int, ...]
    """The cores that its processes may use while it starts; empty: as inherited."""
    state_dir: Path
    """A folder of this fleet, 0700, for one state file an engine."""
    log: Path
    restarts: int


class Running(Protocol):
    """One running engine."""

    url: str
    api_key: str | None
    pid: int | None
    """The root of its process tree; None if it runs elsewhere."""
    log: Path | None
    started_at: Seconds | None
    """Monotonic; None if somebody else started it."""
    restarts: int
    """As the order that started it said: it survives the control plane."""

    async def wait(self) -> Exit:
        """Until it has ended and left no process behind. One waiter at a time; cancelling ends the wait only."""

    async def stop(self) -> None:
        """End it and everything it started, within 20 s; by force if need be. Does nothing if it runs elsewhere."""

    def let_go(self) -> None:
        """Give back what watching it costs; it runs on. Idempotent."""


class Launcher(Protocol):
    """A way to get an engine running. Stateless: what must be remembered stands in the order's state folder."""

    async def launch(self, order: Order) -> Running:
        """Start it; returns before it is ready. Raises `StartError` if it cannot be started (or not now: transient)."""

    async def adopt(self, order: Order) -> Running | None:
        """Take over what an earlier control plane started, if the order wants just that; else end it and say None."""

    async def keeps(self, order: Order) -> bool:
        """Whether `adopt` would take over what runs, or nothing runs; ends nothing."""

    async def end_strangers(self, state_dir: Path, known: frozenset[str]) -> list[str]:
        """End what an earlier control plane started under names that are not `known`; says which."""
