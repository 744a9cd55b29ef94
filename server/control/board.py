"""The replicas as they stand now, for whoever wants to know or wait."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable
from typing import Any, Final

from server.clock import Clock
from server.fleet import Replica

__all__ = ["Board"]

_QUIET: Final = frozenset({"gauges", "memory_bytes"})
"""Fields that change all the time and that nobody waits for."""


class Board:
    """Holds one frozen `Replica` a name, in the configuration's order, and counts the changes that matter."""

    def __init__(self, replicas: Iterable[Replica], clock: Clock) -> None:
        self._replicas = {replica.name: replica for replica in replicas}
        self._clock = clock
        self._version = 1
        self._changed = asyncio.Event()

    def replicas(self) -> list[Replica]:
        return list(self._replicas.values())

    def get(self, name: str) -> Replica:
        return self._replicas[name]

    def set(self, name: str, **changes: Any) -> None:
        """Change fields of one replica; `since` follows `state`."""
        old = self._replicas[name]
        changed = {field for field, value in changes.items() if getattr(old, field) != value}
        if not changed:
            return
        if "state" in changed:
            changes["since"] = self._clock.monotonic()
        self._replicas[name] = dataclasses.replace(old, **changes)
        if not changed <= _QUIET:
            self._version += 1
            self._changed.set()
            self._changed = asyncio.Event()

    async def wait_change(self, seen: int) -> int:
        """Until the version is beyond `seen`; the version then. Start with 0."""
        while self._version <= seen:
            await self._changed.wait()
        return self._version
