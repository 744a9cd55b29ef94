"""When a request may be tried at another replica, and how often that may happen.

A request is tried again only before its client got a byte, only at a replica that it was not tried at, and only while
the budget lasts: when engines fail, retries must not be the load that keeps them failing.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final, Literal, get_args

from server.clock import Clock
from server.errors import ContendedError, RequestError, UpstreamFailedError, UpstreamTimeoutError
from server.units import Seconds

__all__ = ["MAX_RETRY_AFTER", "RetryBudget", "RetryReason", "retry_after_of", "retryable"]

MAX_RETRY_AFTER: Final = Seconds(300.0)
"""Who asks for more is asked again after this."""

_SHARE: Final = 0.1
_FLOOR: Final = 3
_WINDOW: Final = Seconds(10.0)


RetryReason = Literal[
    "connect_failed",
    "connections_busy",
    "connection_lost",
    "status_429",
    "status_502",
    "status_503",
    "status_504",
]
"""Why an attempt was followed by another; a closed vocabulary, it is a metric label.

Busy: all of the worker's connections to the replica were in use. Lost: before the head of the answer.
"""

_BY_STATUS: Final[Mapping[int, RetryReason]] = {
    429: "status_429",
    502: "status_502",
    503: "status_503",
    504: "status_504",
}


def retryable(failure: RequestError | int, *, sent: bool = True) -> RetryReason | None:
    """Why another replica may do better; None: it would not, or it is not worth its while.

    `failure` is what `Exchange.begin` raised, or the status it returned with; `sent`: the request had left whole. An
    engine that took a request and did not begin to answer in time may be at work on it: that is not tried again. Nor
    is a 500, which the request itself may have caused.
    """
    if isinstance(failure, int):
        return _BY_STATUS.get(failure)
    if isinstance(failure, ContendedError):
        return "connections_busy"
    if isinstance(failure, UpstreamFailedError):
        return "connection_lost" if sent else "connect_failed"
    if isinstance(failure, UpstreamTimeoutError) and not sent:
        return "connect_failed"
    return None


def retry_after_of(headers: Mapping[bytes, bytes], clock: Clock) -> Seconds | None:
    """How long the answer's `Retry-After` asks to wait: 0 … 5 minutes; None if it does not say, or nothing sensible.

    `headers` have lower-case names. Both forms are read: seconds, and a date.
    """
    value = headers.get(b"retry-after")
    wait = None if value is None else _wait(value.strip(), clock)
    return None if wait is None else Seconds(min(max(wait, 0.0), MAX_RETRY_AFTER))


def _wait(value: bytes, clock: Clock) -> float | None:
    if value.isdigit():
        return float(value[:9])
    try:
        return parsedate_to_datetime(value.decode("ascii")).timestamp() - clock.wall()
    except (ValueError, OverflowError):
        return None


class RetryBudget:
    """Lets retries be at most a tenth of the last 10 seconds' requests, plus three.

    The last 10 seconds are this window so far and the part of the one before that still counts, as if that one's events
    had come evenly. Both calls cost less than 1 µs.
    """

    __slots__ = ("_clock", "_ends", "_floor", "_old", "_requests", "_retries", "_share", "_window", "spent")

    def __init__(self, clock: Clock, *, share: float = _SHARE, floor: int = _FLOOR, window: Seconds = _WINDOW) -> None:
        self._clock = clock
        self._share = share
        self._floor = floor
        self._window = window
        self._ends = clock.monotonic() + window
        self._requests = self._retries = 0
        self._old = (0, 0)
        self.spent: dict[str, int] = dict.fromkeys(get_args(RetryReason), 0)
        """Retries allowed since the worker started, by reason."""

    def request(self, now: Seconds) -> None:
        """A request has come; its retries are not counted here."""
        if now >= self._ends:
            self._turn(now)
        self._requests += 1

    def allow(self, reason: RetryReason) -> bool:
        """Take one retry from the budget; False: there is none left, answer with what the attempt brought."""
        now = self._clock.monotonic()
        if now >= self._ends:
            self._turn(now)
        requests, retries = self._old
        left = (self._ends - now) / self._window
        if self._retries + left * retries + 1 > self._floor + self._share * (self._requests + left * requests):
            return False
        self._retries += 1
        self.spent[reason] += 1
        return True

    def _turn(self, now: Seconds) -> None:
        just_ended = now < self._ends + self._window
        self._old = (self._requests, self._retries) if just_ended else (0, 0)
        self._requests = self._retries = 0
        self._ends = self._ends + self._window if just_ended else now + self._window
