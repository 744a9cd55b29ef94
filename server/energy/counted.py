"""Tokens by the engines' own counters, between two looks at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from server.fleet import EngineGauges, Replica

__all__ = ["Counted", "TokenCounts"]


class Counted(NamedTuple):
    """What an engine counted meanwhile; None: it does not say, or started again."""

    computed_prompt_tokens: int | None
    output_tokens: int | None


_UNKNOWN = Counted(None, None)


class TokenCounts:
    """The counters of the engines on one device, as they stood at the last window's end."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self._last = {replica.name: (replica.pid, replica.restarts, replica.gauges) for replica in replicas}

    def advance(self, replicas: Sequence[Replica]) -> dict[str, Counted]:
        """Their growth since the last call, by engine."""
        before = self._last
        self._last = {replica.name: (replica.pid, replica.restarts, replica.gauges) for replica in replicas}
        return {
            name: _growth(before[name][2], gauges) if before.get(name, ())[:2] == (pid, restarts) else _UNKNOWN
            for name, (pid, restarts, gauges) in self._last.items()
        }


def _growth(before: EngineGauges | None, after: EngineGauges | None) -> Counted:
    if before is None or after is None:
        return _UNKNOWN
    prompt = _grown(before.prompt_tokens_total, after.prompt_tokens_total)
    cached = _grown(before.prefix_cache_hits_total, after.prefix_cache_hits_total)
    return Counted(
        None if prompt is None or cached is None else max(0, prompt - cached),
        _grown(before.output_tokens_total, after.output_tokens_total),
    )


def _grown(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None or after < before else after - before
