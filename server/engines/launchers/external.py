"""Engines that run already, started by somebody else."""

# ruff: noqa: ARG002  # parameters of the Protocol

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from server.engines.launchers.launcher import Exit, Order, Running
from server.errors import StartError
from server.units import Seconds

__all__ = ["ExternalLauncher"]


@dataclass(slots=True, kw_only=True)
class _Elsewhere:
    url: str
    api_key: str | None
    pid: int | None = None
    log: Path | None = None
    started_at: Seconds | None = None
    restarts: int = 0

    async def wait(self) -> Exit:
        await asyncio.Event().wait()
        raise AssertionError("nothing sets that event: the end of an engine elsewhere is not seen")

    async def stop(self) -> None:
        """It is not ours to stop."""

    def let_go(self) -> None:
        """There is nothing to hold."""


class ExternalLauncher:
    """Starts nothing: the engine is where its `url` says."""

    async def launch(self, order: Order) -> Running:
        if order.url is None:
            raise StartError(f"Engine {order.name!r} has no `url`; name where it runs.")
        return _Elsewhere(url=order.url, api_key=order.api_key)

    async def adopt(self, order: Order) -> Running | None:
        return None

    async def keeps(self, order: Order) -> bool:
        return True

    async def end_strangers(self, state_dir: Path, known: frozenset[str]) -> list[str]:
        return []
