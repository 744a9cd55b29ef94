"""A stretch of time that somebody asks about, and the hours and days that cover it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from server.errors import BadRequestError

__all__ = ["DAY_S", "HOUR_S", "Period", "iso", "parse_period"]

HOUR_S: Final = 3600
DAY_S: Final = 86_400

_DEFAULT_S: Final = 30 * DAY_S
_LATEST: Final = datetime(9999, 12, 1, tzinfo=UTC).timestamp()
_NUMBER: Final = re.compile(r"\d+(\.\d*)?")
_EXAMPLES: Final = "2026-03-01, 2026-03-01T12:30:00+01:00 (without a zone: UTC) or 1772366400 (seconds since 1970)"


@dataclass(frozen=True, slots=True)
class Period:
    """Wall-clock seconds since the epoch: start ≤ t < end."""

    start: float
    end: float

    def widened(self) -> Period:
        """To whole hours: sums are kept by the hour."""
        return Period(math.floor(self.start / HOUR_S) * HOUR_S, math.ceil(self.end / HOUR_S) * HOUR_S)

    def parts(self) -> tuple[list[Period], Period | None]:
        """Of a period of whole hours: the hours before and after whole days (UTC), and the days between them."""
        first, last = math.ceil(self.start / DAY_S) * DAY_S, math.floor(self.end / DAY_S) * DAY_S
        if first >= last:
            return [self], None
        edges = [Period(self.start, first), Period(last, self.end)]
        return [edge for edge in edges if edge.start < edge.end], Period(first, last)


def parse_period(from_: str | None, to: str | None, *, now: float) -> Period:
    """What a query names; by default until now, and thirty days. Raises `BadRequestError`."""
    end = now if to is None else _moment("to", to)
    start = max(0.0, end - _DEFAULT_S) if from_ is None else _moment("from", from_)
    if start >= end:
        raise BadRequestError(f"`from` ({iso(start)}) must be before `to` ({iso(end)}).", param="from")
    return Period(start, end)


def iso(at: float) -> str:
    """ISO 8601, UTC, to the second where it is a whole one, else to the millisecond."""
    moment = datetime.fromtimestamp(at, UTC)
    return moment.isoformat(timespec="seconds" if at == int(at) else "milliseconds")


def _moment(name: str, text: str) -> float:
    try:
        at = float(text) if _NUMBER.fullmatch(text) else _date(text)
    except (ValueError, OverflowError) as exc:
        raise _wrong(name, text) from exc
    if not 0 <= at <= _LATEST:
        raise _wrong(name, text)
    return at


def _date(text: str) -> float:
    # In a URL a plus that nobody escaped is a space.
    moment = datetime.fromisoformat(re.sub(r" (\d\d:?\d\d)$", r"+\1", text.strip()))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _wrong(name: str, text: str) -> BadRequestError:
    return BadRequestError(f"`{name}` is no time: {text[:60]!r}. Write {_EXAMPLES}.", param=name)
