"""Grants memory to engines that start at the same time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from server.engines.launchers import TransientStartError
from server.errors import StartError
from server.models import check_memory
from server.units import Bytes

__all__ = ["MemoryBudget", "NoMemoryNowError"]


class NoMemoryNowError(TransientStartError):
    """There is not enough memory now; there may be when others have ended."""


class MemoryBudget:
    """What starting engines will take and have not taken yet stands against what the machine has free."""

    def __init__(self, available: Callable[[], Bytes | None]) -> None:
        self._available = available
        self._promised = 0

    @contextlib.contextmanager
    def promise(self, needed: Bytes | None) -> Iterator[None]:
        """Hold it while an engine starts; None is not checked. Raises `NoMemoryNowError` if there is too little."""
        available = self._available()
        if needed is not None and available is not None:
            self._check(needed, Bytes(max(0, available - self._promised)))
        self._promised += needed or 0
        try:
            yield
        finally:
            self._promised -= needed or 0

    @staticmethod
    def _check(needed: Bytes, available: Bytes) -> None:
        try:
            check_memory(needed, available)
        except StartError as exc:
            raise NoMemoryNowError(str(exc)) from exc
