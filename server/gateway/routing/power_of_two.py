"""Routing policy: the less busy of two random candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from server.gateway.routing.policy import Ask
from server.wire import Candidate

__all__ = ["PowerOfTwo"]


class PowerOfTwo:
    """Nearly as even as the least busy of all, and workers that do not know of one another do not all pick the same.

    Source: M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001.
    """

    def __init__(self, random: Random) -> None:
        self._random = random.random

    def choose(self, candidates: Sequence[Candidate], outstanding: Mapping[str, int], ask: Ask) -> Candidate:  # noqa: ARG002
        count = len(candidates)
        if count == 1:
            return candidates[0]
        index = int(self._random() * count)
        one = candidates[index]
        other = candidates[(index + 1 + int(self._random() * (count - 1))) % count]
        return other if outstanding.get(other.replica, 0) < outstanding.get(one.replica, 0) else one
