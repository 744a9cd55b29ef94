"""Watches one running replica: does it answer, how busy is it, how big."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from server.control.board import Board
from server.control.devices import gpu_memory_of
from server.control.scrape import EngineClient, max_model_len
from server.engines.process_tree import proportional_set_size, tree
from server.fleet import EngineState
from server.units import Bytes

__all__ = ["HOPELESS", "MISSES", "HealthWatch", "facts"]

_INTERVAL_S: Final = 2.0
_MEMORY_EVERY: Final = 5
"""Checks between two looks at the memory: the kernel walks every mapping for it."""
MISSES: Final = 3
"""Unanswered checks in a row that make a replica unhealthy. One answer makes it ready again."""
HOPELESS: Final = MISSES + 30
"""Unanswered checks in a row after which an engine that was started here is ended: it hangs, and stays so."""


async def facts(client: EngineClient, upstream_model: str) -> dict[str, Any] | None:
    """What a replica says of itself; None if it does not list its models yet."""
    models = await client.models()
    if models is None:
        return None
    return {"max_model_len": max_model_len(models, upstream_model), "engine_version": await client.version()}


@dataclass(slots=True, kw_only=True)
class HealthWatch:
    """Keeps `state`, `gauges` and `memory_bytes` of one replica true for as long as it runs."""

    board: Board
    name: str
    client: EngineClient
    pid: int | None
    gpus: Sequence[int]
    checked: Callable[[], None]
    """Called after every check."""
    interval_s: float = _INTERVAL_S
    hopeless: int = HOPELESS

    async def until_hopeless(self) -> None:
        """For ever, or until an engine that runs here has not answered for so long that only another start helps."""
        misses = 0
        for check in itertools.count():
            misses = 0 if await self.client.healthy() else misses + 1
            await self._judge(misses)
            self.checked()
            if misses >= self.hopeless and self.pid is not None:
                return
            if misses == 0:
                self.board.set(self.name, gauges=await self.client.gauges())
            if check % _MEMORY_EVERY == 0 and self.pid is not None:
                self.board.set(self.name, memory_bytes=await asyncio.to_thread(self._memory, self.pid))
            await asyncio.sleep(self.interval_s)

    async def _judge(self, misses: int) -> None:
        replica = self.board.get(self.name)
        if misses == 0 and replica.state is not EngineState.READY:
            # It may be another model by now: an external one can have been restarted.
            told = await facts(self.client, replica.upstream_model)
            self.board.set(self.name, state=EngineState.READY, problem=None, **(told or {}))
        elif misses >= MISSES and replica.state in (EngineState.READY, EngineState.STARTING):
            problem = self._silence(replica.url)
            self.board.set(self.name, state=EngineState.UNHEALTHY, problem=problem, gauges=None)

    def _silence(self, url: str | None) -> str:
        advice = "Look into its log." if self.pid is not None else "Start it, or correct its `url` and key."
        return f"It does not answer its health check at {url}. {advice}"

    def _memory(self, pid: int) -> Bytes | None:
        pids = tree(pid)
        return gpu_memory_of(pids, self.gpus) if self.gpus else proportional_set_size(pids)
