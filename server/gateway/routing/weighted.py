"""Routing policy: turns in proportion to the engines' weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from server.gateway.routing.policy import Ask
from server.wire import Candidate

__all__ = ["Weighted"]


class Weighted:
    """Smooth weighted round robin: with weights 3 and 1 the turns are a, a, b, a, and not a, a, a, b.

    At each choice every candidate earns its weight, the richest serves and pays what all have earned.
    Source: nginx, ngx_http_upstream_round_robin.c (1.3.1, "upstream: smooth weighted round-robin balancing").
    """

    def __init__(self) -> None:
        self._earned: dict[str, float] = {}

    def choose(self, candidates: Sequence[Candidate], outstanding: Mapping[str, int], ask: Ask) -> Candidate:  # noqa: ARG002
        earned = self._earned
        chosen, most, total = candidates[0], float("-inf"), 0.0
        for one in candidates:
            total += one.weight
            has = earned[one.replica] = earned.get(one.replica, 0.0) + one.weight
            if has > most:
                chosen, most = one, has
        earned[chosen.replica] = most - total
        if len(earned) > len(candidates):
            self._earned = {one.replica: earned[one.replica] for one in candidates}
        return chosen
