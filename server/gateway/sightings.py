"""What a worker sees at each replica: told to the control plane, and answered at once by leaving a replica alone.

The health of a replica is the control plane's to judge, by what all workers saw. Until it has, each worker helps
itself: who could not be reached, or asked not to be for a while, is tried again later, as long as there is another.
"""

from __future__ import annotations

from typing import Final

from server.clock import Clock
from server.errors import RequestError, UpstreamFailedError, UpstreamTimeoutError
from server.units import Seconds
from server.wire import ReplicaSeen

__all__ = ["Sightings"]

_FIRST_PAUSE: Final = Seconds(1.0)
_MAX_PAUSE: Final = Seconds(10.0)
_BROKEN: Final = frozenset({502, 504})


class Sightings:
    """Of one worker. One call an attempt, less than 1 µs each.

    `avoided` is the router's: replica → CLOCK_MONOTONIC until when. A pause begins with 1 s and doubles to 10 s with
    each failure after the pause before it; an answer ends it. A pause that the replica asked for (`Retry-After`) stands
    whatever other requests bring: their answers say nothing of room for more.
    """

    __slots__ = ("_asked", "_clock", "_pauses", "_seen", "avoided")

    def __init__(self, clock: Clock, avoided: dict[str, Seconds]) -> None:
        self._clock = clock
        self.avoided = avoided
        self._pauses: dict[str, Seconds] = {}
        """The last pause of those that fail."""
        self._asked: dict[str, Seconds] = {}
        """Until when those want to be left alone that said so."""
        self._seen: dict[str, ReplicaSeen] = {}

    def answered(self, replica: str) -> None:
        """The head of an answer came, with a status that is none of those of `refused`."""
        self._of(replica).answered += 1
        if self._pauses and replica in self._pauses:
            self._recovered(replica)

    def erred(self, replica: str) -> None:
        """It answered 500 or the like: a sign of life, but not of health."""
        self._of(replica).erred += 1

    def refused(self, replica: str, status: int, retry_after: Seconds | None) -> None:
        """It answered 429 or 503: not now; `retry_after` is how long it wants to be left alone.

        Or 502 or 504: it is a proxy that cannot reach what is behind it, which is no better than silence.
        """
        seen = self._of(replica)
        if status in _BROKEN:
            seen.broken += 1
            self._pause(replica)
        else:
            seen.refused += 1
        if retry_after:
            until = Seconds(self._clock.monotonic() + retry_after)
            self._asked[replica] = until
            self.avoided[replica] = max(until, self.avoided.get(replica, until))

    def failed(self, replica: str, error: RequestError, *, sent: bool) -> None:
        """An exchange ended with this error, before the answer's head or in the middle; `sent`: the request left whole.

        What is the gateway's own doing is no sighting.
        """
        if not isinstance(error, UpstreamFailedError | UpstreamTimeoutError):
            return
        seen = self._of(replica)
        if not sent:
            seen.unreachable += 1
        elif isinstance(error, UpstreamTimeoutError):
            seen.timed_out += 1
            return  # slow is not gone
        else:
            seen.lost += 1
        self._pause(replica)

    def take(self) -> dict[str, ReplicaSeen]:
        """What was seen since the last call; replicas of which nothing was seen are not in it."""
        seen, self._seen = self._seen, {}
        return seen

    def retain(self, replicas: set[str]) -> None:
        """Only these are left; forget the others."""
        for memory in (self._pauses, self._asked, self.avoided):
            for name in memory.keys() - replicas:
                del memory[name]

    def _of(self, replica: str) -> ReplicaSeen:
        seen = self._seen.get(replica)
        if seen is None:
            seen = self._seen[replica] = ReplicaSeen()
        return seen

    def _pause(self, replica: str) -> None:
        now = self._clock.monotonic()
        if now < self.avoided.get(replica, 0.0):
            return  # another request of the same bad moment
        pause = self._pauses.get(replica)
        pause = _FIRST_PAUSE if pause is None else Seconds(min(2 * pause, _MAX_PAUSE))
        self._pauses[replica] = pause
        self.avoided[replica] = Seconds(now + pause)

    def _recovered(self, replica: str) -> None:
        del self._pauses[replica]
        asked = self._asked.pop(replica, None)
        if asked is not None and asked > self._clock.monotonic():
            self._asked[replica] = self.avoided[replica] = asked
        else:
            self.avoided.pop(replica, None)
