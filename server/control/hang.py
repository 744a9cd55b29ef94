"""Tells an engine that hangs from one that is busy.

An engine hangs if it answers its health checks and yields nothing. To be ejected for it, and started again if it was
started here, all of this must be so:

1. For `health.hung_after_s` in all, requests of workers were there, and no worker saw a token or an answer's end.
2. In that time its own counters stood still, as far as it has any: tokens, steps, requests running and waiting,
   use of the KV cache. A long prefill is cut into steps, each of which moves them; a full batch moves them, too.
3. Asked for one token, with `health.probe_timeout_s` to yield it, it did not; nor did 1. or 2. end meanwhile.

An engine that refuses to be asked (any 4xx) is alive. One that says nothing of its counters (`kind: openai`) has
`hung_after_s` for the probe if that is longer: if it serves one request at a time, set `hung_after_s` above its longest
answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from server.config import HealthSettings
from server.control.scrape import EngineClient
from server.control.witness import Witness
from server.engines import Call
from server.fleet import EngineGauges
from server.units import Seconds

__all__ = ["HangWatch"]


@dataclass(slots=True, kw_only=True)
class HangWatch:
    """Applies the rule to one engine."""

    client: EngineClient
    probe: Call
    settings: HealthSettings
    witness: Witness
    _last: EngineGauges | None = None

    def note(self, gauges: EngineGauges | None) -> None:
        """What the engine said of itself just now; None: nothing."""
        if gauges is not None:
            if self._last is not None and gauges != self._last:
                self.witness.progressed()
            self._last = gauges

    async def hangs(self) -> bool:
        """Whether it hangs for sure. Returns at once while there is no reason to think so."""
        if self.witness.stalled_for < self.settings.hung_after_s or not self.witness.in_flight:
            return False
        signs = self.witness.signs
        if await self.yields():
            self.witness.progressed()
            return False
        self.note(await self.client.gauges())
        return self.witness.signs == signs

    async def yields(self) -> bool:
        """Whether it answers the smallest of all requests in time."""
        return await self.client.probe(self.probe, self._time())

    def _time(self) -> Seconds:
        speaks = self._last is not None and self._last.output_tokens_total is not None
        bound = self.settings.probe_timeout_s
        return Seconds(bound if speaks else max(bound, self.settings.hung_after_s))
