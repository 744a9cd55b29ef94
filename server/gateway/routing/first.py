"""Routing policy: the first healthy candidate in the configuration's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from server.wire import Candidate

__all__ = ["First"]


class First:
    """For ids that name several variants: always the first listed one."""

    def choose(self, candidates: Sequence[Candidate], outstanding: Mapping[str, int]) -> Candidate:  # noqa: ARG002
        return candidates[0]
