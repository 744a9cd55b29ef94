"""Routing policy: the replica with the fewest requests of this worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from server.gateway.routing.load import least_loaded
from server.gateway.routing.policy import Ask
from server.wire import Candidate

__all__ = ["LeastOutstanding"]


class LeastOutstanding:
    """Evens out replicas; among equals the next after the one used last, so that idle ones take turns."""

    def __init__(self) -> None:
        self._next = 0

    def choose(self, candidates: Sequence[Candidate], outstanding: Mapping[str, int], ask: Ask) -> Candidate:  # noqa: ARG002
        chosen = least_loaded(candidates, outstanding, self._next % len(candidates))
        self._next = chosen + 1
        return candidates[chosen]
