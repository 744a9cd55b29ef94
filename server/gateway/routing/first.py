"""Routing policy: the first healthy candidate in the configuration's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from server.gateway.routing.policy import Ask
from server.wire import Candidate

__all__ = ["First"]


class First:
    """The others stand by: they serve while those before them cannot."""

    def choose(self, candidates: Sequence[Candidate], outstanding: Mapping[str, int], ask: Ask) -> Candidate:  # noqa: ARG002
        return candidates[0]
