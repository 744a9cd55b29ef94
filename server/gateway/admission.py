"""Bounds what runs and what waits; too much is refused with a time to come back."""

from __future__ import annotations

import asyncio
from typing import Final

from server.clock import Clock
from server.errors import ContendedError, RequestError
from server.gateway.line import Claim, Line
from server.gateway.pace import Pace
from server.units import Seconds

__all__ = ["REASONS", "Admission", "Claim"]

QUEUE_FULL: Final = "queue_full"
"""There was no place to wait."""
TOO_MANY_BYTES: Final = "too_many_bytes"
"""The bodies of those who wait hold as much as they may."""
QUEUE_TIMEOUT: Final = "queue_timeout"
TENANT_SHARE: Final = "tenant_share"
"""A tenant with fewer requests in the full queue took the place."""
PRIORITY: Final = "priority"
"""A request of a higher band took the place in the full queue."""
NO_CAPACITY: Final = "no_capacity"
"""Nobody can serve the model, and nobody is about to."""

REASONS: Final = (QUEUE_FULL, TOO_MANY_BYTES, QUEUE_TIMEOUT, TENANT_SHARE, PRIORITY, NO_CAPACITY)


class Admission:
    """Slots for running requests, and a bounded queue before them; `line.py` has the order in which they go.

    The counts and bytes that all share go strictly by that order, so that small requests cannot starve a large one.
    """

    def __init__(
        self,
        *,
        max_in_flight: int,
        max_in_flight_bytes: int,
        max_in_flight_per_tenant: int | None,
        max_queue: int,
        queue_timeout: Seconds,
        clock: Clock,
    ) -> None:
        """`max_in_flight_bytes` is no less than the longest body; those who wait may hold as much again."""
        self._max_count = max_in_flight
        self._max_bytes = max_in_flight_bytes
        self._max_of_tenant = max_in_flight_per_tenant or max_in_flight
        self._max_queue = max_queue
        self._queue_timeout = queue_timeout
        self._clock = clock
        self._count = 0
        self._bytes = 0
        self._tenants: dict[str, int] = {}
        self._line = Line()
        self._stuck: int | None = None
        """The band of the one who is next and lacks what all share; None: whoever waits is held up by his own."""
        self._pace = Pace()
        self._contended = False
        """Somebody waits, or was refused since the last request ended: then the pace is measured."""
        self._ended = 0
        self.rejections: dict[str, int] = dict.fromkeys(REASONS, 0)
        """Refusals since this worker started, by reason."""

    @property
    def in_flight(self) -> int:
        """Requests that hold a slot."""
        return self._count

    @property
    def in_flight_bytes(self) -> int:
        """Of their bodies."""
        return self._bytes

    @property
    def queued(self) -> int:
        """Requests that wait for a slot."""
        return len(self._line)

    def try_enter(self, claim: Claim) -> bool:
        """Take a slot if there is one and nobody has the first claim to it; the caller must `leave` it.

        What follows up to `Router.sent` must not wait: until then nobody sees the room at the engine as taken.
        """
        held = self._tenants.get(claim.tenant, 0)
        if (
            self._count >= self._max_count
            or self._bytes + claim.size > self._max_bytes
            or held >= self._max_of_tenant
            or (claim.route.tight and claim.route.room() is None)
            or (self._stuck is not None and claim.priority >= self._stuck)
        ):
            return False
        self._count += 1
        self._bytes += claim.size
        self._tenants[claim.tenant] = held + 1
        claim.has_slot = True
        return True

    async def enter(self, claim: Claim) -> Seconds:
        """Take a slot, waiting for one if need be, and return how long that took; the caller must `leave` it.

        May be cancelled. Raises `ContendedError`, or `NoCapacityError` if nobody serves the route or is about to.
        Like after `try_enter`, what follows up to `Router.sent` must not wait.
        """
        if self.try_enter(claim):
            return Seconds(0.0)
        since = self._clock.monotonic()
        self._line_up(claim)
        try:
            refusal = await claim.place
        except asyncio.CancelledError:
            self._give_up(claim)
            raise
        if refusal is not None:
            raise refusal
        self._redeem(claim)
        return Seconds(self._clock.monotonic() - since)

    def leave(self, claim: Claim) -> None:
        """Give the slot back, once, when the last byte is sent: to who is next in the line."""
        assert claim.has_slot, "a slot was given back that is not held"
        claim.has_slot = False
        self._ended += 1
        self._count -= 1
        self._bytes -= claim.size
        held = self._tenants[claim.tenant] - 1
        if held:
            self._tenants[claim.tenant] = held
        else:
            del self._tenants[claim.tenant]
        if self._contended:
            self._someone_left()

    def look_again(self) -> None:
        """Something has changed at the engines: somebody in the line may go on, or waits in vain."""
        if not self._line:
            return
        for route in self._line.hopeless():
            for claim in self._line.bound_for(route):
                self._send_away(claim, NO_CAPACITY, route.nobody())
        self._serve_line()

    def _someone_left(self) -> None:
        """While there are too many: note the pace, and serve who is next."""
        self._pace.ended(self._clock.monotonic(), self._ended)
        self._contended = bool(self._line)
        self._serve_line()

    # --- the line -----------------------------------------------------------------------------------------------------

    def _line_up(self, claim: Claim) -> None:
        """Wait in the line, in the place of somebody else if it is full; raises what `enter` raises."""
        if claim.route.hopeless:
            self.rejections[NO_CAPACITY] += 1
            raise claim.route.nobody()
        if (reason := self._full(claim, None)) is not None:
            weaker = self._line.weaker_than(claim)
            if weaker is None or (reason := self._full(claim, weaker)) is not None:
                self.rejections[reason] += 1
                raise self._too_busy(_WHY[reason].format(count=len(self._line), bytes=self._line.bytes))
            why = TENANT_SHARE if weaker.priority == claim.priority else PRIORITY
            self._send_away(weaker, why, self._too_busy(_WHY[why]))
        loop = asyncio.get_running_loop()
        claim.place = loop.create_future()
        claim.timer = loop.call_later(self._queue_timeout, self._time_is_over, claim)
        self._line.add(claim)
        self._contended = True
        self._serve_line()

    def _full(self, claim: Claim, without: Claim | None) -> str | None:
        """Why there is no place to wait, once the other has gone."""
        gone, gone_bytes = (0, 0) if without is None else (1, without.size)
        if len(self._line) - gone >= self._max_queue:
            return QUEUE_FULL
        if self._line.bytes - gone_bytes + claim.size > self._max_bytes:
            return TOO_MANY_BYTES
        return None

    def _serve_line(self) -> None:
        """Give slots to those who are next, for as long as there is enough of everything."""
        self._stuck = None
        while self._line:
            claim = self._line.first(self._at_bound)
            if claim is None:
                return
            if claim.place.done():  # cancelled, and its owner did not run yet
                self._drop(claim)
                continue
            if self._count >= self._max_count or self._bytes + claim.size > self._max_bytes:
                self._stuck = claim.priority
                return
            self._line.serve(claim)
            self._count += 1
            self._bytes += claim.size
            self._tenants[claim.tenant] = self._tenants.get(claim.tenant, 0) + 1
            claim.has_slot = True
            if claim.route.tight:
                claim.promised = claim.route.room()
                assert claim.promised is not None
                claim.route.hold(claim.promised)
            claim.timer.cancel()
            claim.place.set_result(None)

    def _at_bound(self, tenant: str) -> bool:
        return self._tenants.get(tenant, 0) >= self._max_of_tenant

    def _redeem(self, claim: Claim) -> None:
        """The one who waited goes on: what was kept for him at an engine is there for him to take."""
        if claim.promised is not None:
            claim.route.free(claim.promised)
            claim.promised = None
            # He may take room elsewhere, and then leaves some for others.
            asyncio.get_running_loop().call_soon(self.look_again)

    def _give_up(self, claim: Claim) -> None:
        """The one who waited is cancelled, perhaps after he was served."""
        if claim.has_slot:
            if claim.promised is not None:
                claim.route.free(claim.promised)
            self.leave(claim)
        elif claim.waits:
            self._drop(claim)
            self._serve_line()

    def _time_is_over(self, claim: Claim) -> None:
        if claim.route.serves:
            why = f"no slot came free within {self._queue_timeout:g} s"
            self._send_away(claim, QUEUE_TIMEOUT, self._too_busy(why))
        else:
            self._send_away(claim, NO_CAPACITY, claim.route.nobody())
        self._serve_line()

    def _send_away(self, claim: Claim, reason: str, refusal: RequestError) -> None:
        """Out of the line, with a refusal."""
        self._drop(claim)
        if not claim.place.done():  # else cancelled, and its owner did not run yet
            self.rejections[reason] += 1
            claim.place.set_result(refusal)

    def _drop(self, claim: Claim) -> None:
        """Out of the line, without a slot."""
        self._line.remove(claim)
        claim.timer.cancel()

    def _too_busy(self, why: str) -> ContendedError:
        self._contended = True
        wait = self._pace.wait(len(self._line) + 1, self._clock.monotonic(), self._ended)
        return ContendedError(f"The gateway is busy: {why}. Try again later.", retry_after=wait)


_WHY: Final = {
    QUEUE_FULL: "{count} requests are waiting already",
    TOO_MANY_BYTES: "the requests that wait hold {bytes} bytes already",
    TENANT_SHARE: "the queue is full, and this tenant has the most requests in it",
    PRIORITY: "the queue is full, and requests of a higher priority go first",
}
