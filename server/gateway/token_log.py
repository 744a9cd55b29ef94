"""The token times of streams: one log a stream, and columns of many for a batch."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import nan

from server.units import Seconds
from server.wire import Candidate, Source, TokenTimes

__all__ = ["TokenColumns", "TokenLog"]


@dataclass(slots=True, kw_only=True, eq=False)
class TokenLog:
    """One stream's token arrival times that no batch has taken yet."""

    id: str
    tenant: str
    candidate: Candidate
    sent_at: Seconds
    times: array[float] = field(default_factory=lambda: array("d"))
    """Whoever watches the stream appends here."""
    previous_at: float = nan
    """The last time that a batch took."""
    taken: int = 0
    """Times that batches took."""

    @property
    def count(self) -> int:
        """Times of the whole stream so far."""
        return self.taken + len(self.times)

    @property
    def last_at(self) -> Seconds | None:
        """The last of them."""
        if self.times:
            return Seconds(self.times[-1])
        return Seconds(self.previous_at) if self.taken else None


class TokenColumns:
    """Token times of many streams, column by column: that costs less than stream by stream."""

    def __init__(self) -> None:
        self._sources: dict[tuple[int, str], TokenLog] = {}
        """By candidate and tenant, a log that has both. By the candidate's identity: hashing it costs more than all the
        rest, and as long as its log is here, no other has it."""
        self._ids: list[str] = []
        self._source_of = array("I")
        self._counts = array("I")
        self._sent_at = array("d")
        self._previous_at = array("d")
        self._times = array("d")

    def take(self, logs: Sequence[TokenLog]) -> None:
        """Add the times of these logs, of which each has some, and take them from the logs."""
        sources = self._sources
        for source, log in {(id(log.candidate), log.tenant): log for log in logs}.items():
            sources.setdefault(source, log)
        places = {source: place for place, source in enumerate(sources)}
        self._ids += [log.id for log in logs]
        self._source_of.extend([places[id(log.candidate), log.tenant] for log in logs])
        self._counts.extend([len(log.times) for log in logs])
        self._sent_at.extend([log.sent_at for log in logs])
        self._previous_at.extend([log.previous_at for log in logs])
        self._times.frombytes(b"".join([log.times for log in logs]))
        for log in logs:
            times = log.times
            log.previous_at = times[-1]
            log.taken += len(times)
            del times[:]

    def packed(self) -> TokenTimes:
        """All that was taken. A stream may be there twice, its later times behind."""
        return TokenTimes(
            sources=[_source(log.candidate, log.tenant) for log in self._sources.values()],
            ids=self._ids,
            source_of=_little(self._source_of),
            counts=_little(self._counts),
            sent_at=_little(self._sent_at),
            previous_at=_little(self._previous_at),
            times=_little(self._times),
        )


def _source(one: Candidate, tenant: str) -> Source:
    return Source(
        tenant=tenant,
        model=one.model,
        variant=one.variant,
        precision=one.precision,
        adapter=one.adapter,
        engine=one.replica,
    )


def _little(values: array[int] | array[float]) -> bytes:
    """Little-endian, as the wire wants it."""
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()
