"""Bounds what runs and what waits; too much is refused with a time to come back."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from server.clock import Clock
from server.errors import ContendedError
from server.gateway.seats import Seats
from server.units import Seconds

__all__ = ["Admission", "Slot"]

QUEUE_FULL: Final = "queue_full"
QUEUE_TIMEOUT: Final = "queue_timeout"

_COME_BACK = Seconds(1.0)


class Admission:
    """Slots for running requests, and a bounded queue before them, first come first served."""

    def __init__(self, *, max_in_flight: int, max_queue: int, queue_timeout: Seconds, clock: Clock) -> None:
        self._max_queue = max_queue
        self._queue_timeout = queue_timeout
        self._clock = clock
        self._seats = Seats(max_in_flight)
        self.rejections: dict[str, int] = {QUEUE_FULL: 0, QUEUE_TIMEOUT: 0}
        """Refusals since this worker started, by reason."""

    @property
    def queued(self) -> int:
        """Requests that wait for a slot."""
        return self._seats.waiting

    def slot(self, tenant: str) -> Slot:
        """A slot for one request, to be held with `async with` until the last byte; raises `ContendedError`.

        Whoever waits may be cancelled. `tenant` decides nothing yet: all wait in one line.
        """
        return Slot(self, tenant)

    async def enter(self) -> Seconds:
        """Take a slot, waiting for one if need be; returns how long that took."""
        if self._seats.take_now():
            return Seconds(0.0)
        if self._seats.waiting >= self._max_queue:
            raise self._refusal(QUEUE_FULL, f"{self._seats.waiting} requests are waiting already")
        since = self._clock.monotonic()
        try:
            await self._seats.take(self._queue_timeout)
        except TimeoutError as exc:
            raise self._refusal(QUEUE_TIMEOUT, f"no slot came free within {self._queue_timeout:g} s") from exc
        return Seconds(self._clock.monotonic() - since)

    def leave(self) -> None:
        """Give the slot to the first who waits, else back."""
        self._seats.leave()

    def _refusal(self, reason: str, why: str) -> ContendedError:
        self.rejections[reason] += 1
        return ContendedError(f"The gateway is busy: {why}. Try again later.", retry_after=_COME_BACK)


class Slot:
    """One request's place among those that run."""

    __slots__ = ("_admission", "tenant", "waited")

    def __init__(self, admission: Admission, tenant: str) -> None:
        self._admission = admission
        self.tenant = tenant
        self.waited = Seconds(0.0)
        """How long the request stood in the queue."""

    async def __aenter__(self) -> Self:
        self.waited = await self._admission.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.leave()
