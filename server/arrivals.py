"""A batch's token times as arrays: which stream, which gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from server.errors import WireError
from server.wire import Source, TokenTimes

__all__ = ["Arrivals"]

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Arrivals:
    """Token chunks of many streams. Of the arrays, `times` has an entry for each chunk, the others for each stream."""

    sources: Sequence[Source]
    ids: Sequence[str]
    source_of: Places
    """The stream's place in `sources`."""
    counts: Places
    """Its chunks."""
    starts: Places
    """Where in `times` it begins."""
    sent_at: Floats
    previous_at: Floats
    """Its last chunk before these; NaN: there was none."""
    times: Floats

    @classmethod
    def of(cls, tokens: TokenTimes) -> Arrivals:
        """Raises `WireError` for columns that do not fit together."""
        counts = np.frombuffer(tokens.counts, "<u4").astype(np.int64)
        times = np.frombuffer(tokens.times, "<f8")
        if counts.sum() != len(times) or not counts.all():
            raise WireError(f"A worker sent {len(times)} token times for {len(counts)} streams of {counts.sum()}.")
        return cls(
            sources=tokens.sources,
            ids=tokens.ids,
            source_of=np.frombuffer(tokens.source_of, "<u4").astype(np.int64),
            counts=counts,
            starts=np.cumsum(counts) - counts,
            sent_at=np.frombuffer(tokens.sent_at, "<f8"),
            previous_at=np.frombuffer(tokens.previous_at, "<f8"),
            times=times,
        )

    def gaps(self) -> tuple[Places, Floats]:
        """Times between a stream's chunks, the one to the last chunk of the batch before included.

        And, for each, its stream's place in `sources`.
        """
        before = np.empty_like(self.times)
        before[1:] = self.times[:-1]
        before[self.starts] = self.previous_at
        gaps = self.times - before
        known = ~np.isnan(gaps)
        return np.repeat(self.source_of, self.counts)[known], gaps[known]
