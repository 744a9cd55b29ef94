"""Routing policy: the replica with the fewest requests of this worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from server.wire import Candidate

__all__ = ["LeastOutstanding"]


class LeastOutstanding:
    """Evens out replicas of one variant; among equals the one used longest ago, so that idle ones take turns."""

    def __init__(self) -> None:
        self._turn = 0
        self._used: dict[str, int] = {}

    def choose(self, candidates: Sequence[Candidate], outstanding: Mapping[str, int]) -> Candidate:
        if len(candidates) == 1:
            return candidates[0]
        used = self._used
        chosen = min(candidates, key=lambda one: (outstanding.get(one.replica, 0), used.get(one.replica, 0)))
        self._turn += 1
        used[chosen.replica] = self._turn
        return chosen
