"""Routing policy: each healthy candidate in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from server.gateway.routing.policy import Ask
from server.wire import Candidate

__all__ = ["RoundRobin"]


class RoundRobin:
    """Takes turns, whatever is running."""

    def __init__(self) -> None:
        self._turn = -1

    def choose(self, candidates: Sequence[Candidate], outstanding: Mapping[str, int], ask: Ask) -> Candidate:  # noqa: ARG002
        self._turn = (self._turn + 1) % len(candidates)
        return candidates[self._turn]
