"""What a routing policy is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from server.wire import Candidate

__all__ = ["RoutingPolicy"]


class RoutingPolicy(Protocol):
    """Picks one of several replicas that can serve a request. One instance a public id; it may remember."""

    def choose(self, candidates: Sequence[Candidate], outstanding: Mapping[str, int]) -> Candidate:
        """One of `candidates`, which are healthy, at least one, and in the configuration's order.

        `outstanding`: requests of this worker sent and not ended, by replica; a missing name has none.
        Linear in the candidates, no waiting.
        """
