"""What a routing policy is, and what it may look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from server.wire import Candidate

__all__ = ["Ask", "RoutingPolicy"]


@dataclass(slots=True)
class Ask:
    """What is known of a request when its replica is chosen."""

    body: bytes
    """As the client sent it: one JSON object."""


class RoutingPolicy(Protocol):
    """Picks one of several replicas that can serve a request. One instance a public id; it may remember."""

    def choose(self, candidates: Sequence[Candidate], outstanding: Mapping[str, int], ask: Ask) -> Candidate:
        """One of `candidates`: healthy, with room, at least one, in the configuration's order.

        `outstanding`: requests of this worker sent and not ended, by replica; a missing name has none.
        Linear in the candidates, at most 5 µs for a few of them, no waiting. What it remembers is bounded, whatever
        clients send and however often replicas come and go.
        """
