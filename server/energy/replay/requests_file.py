"""Requests from a file, each as the record that a gateway would have written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from server.energy.replay.lines import Fields, Warnings, read_lines
from server.wire import NO_ADAPTER, Outcome, RequestRecord

__all__ = ["ENGINE", "Traced", "read_requests"]

_LATEST: Final = 1e11
ENGINE: Final = "engine"
"""The engine's name where nobody says one."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Traced:
    """A line of the file."""

    id: Any
    """As it stands there."""
    record: RequestRecord | None
    """None: it never was at an engine on the meter, or nobody knows when."""
    token_times: Floats
    """Ascending, none before the request began."""
    refused: bool
    """It never reached an engine, so it used nothing."""


def read_requests(path: Path, engine: str | None, warnings: Warnings) -> list[Traced]:
    """In the order of the file. With `engine` only its requests are on the meter, and those that name none are its.

    Raises `TraceError` for a line that is no JSON object.
    """
    lines = list(read_lines(path, warnings))
    ids = Counter(str(line.values.get("id")) for line in lines)
    warnings["duplicate_ids"] += ids.total() - len(ids)
    return [_read(line, place, engine, warnings) for place, line in enumerate(lines)]


def _read(line: Fields, place: int, engine: str | None, warnings: Warnings) -> Traced:
    id_, at = line.values.get("id"), line.text("engine") or engine or ENGINE
    outcome, start = _outcome(line, warnings), line.time("start_s")
    if outcome is Outcome.REJECTED:
        return Traced(id_, None, np.zeros(0), refused=True)
    if engine is not None and at != engine:
        warnings["requests_of_other_engines"] += 1
        return Traced(id_, None, np.zeros(0), refused=False)
    if start is None:
        warnings["requests_without_start"] += 1
        return Traced(id_, None, np.zeros(0), refused=False)
    times = _token_times(line, start, warnings)
    first, end = _first_and_end(line, start, times, warnings)
    tenant = line.text("tenant")
    warnings["requests_without_tenant"] += tenant is None
    record = RequestRecord(
        id=str(place),
        endpoint="replay",
        tenant=tenant or NO_ADAPTER,
        requested_model=None,
        model=None,
        variant=None,
        precision=None,
        adapter=line.text("adapter") or NO_ADAPTER,
        engine=at,
        outcome=outcome,
        status=200,
        streamed=len(times) > 0,
        cancelled_when=None,
        retries=0,
        received_at=start,
        queue_s=0.0,
        sent_at=start,
        first_byte_at=None,
        first_token_at=first,
        last_token_at=float(times[-1]) if len(times) else None,
        upstream_done_at=end,
        ended_at=end,
        prompt_tokens=line.count("prompt_tokens"),
        cached_tokens=line.count("cached_tokens"),
        output_tokens=line.count("output_tokens"),
        token_chunks=len(times),
    )
    return Traced(id_, record, times, refused=False)


def _outcome(line: Fields, warnings: Warnings) -> Outcome:
    """A request whose outcome is not said was completed."""
    said = line.text("outcome")
    if said is None or said in Outcome._value2member_map_:
        return Outcome(said or Outcome.OK)
    warnings["outcomes_unknown"] += 1
    return Outcome.OK


def _token_times(line: Fields, start: float, warnings: Warnings) -> Floats:
    """Those that are times, in order; one before the request began counts at its beginning."""
    listed = line.values.get("token_times_s")
    if not isinstance(listed, list):
        warnings["values_ignored"] += listed is not None
        return np.zeros(0)
    numbers = [one for one in listed if type(one) is float or type(one) is int]
    times = np.array(numbers, np.float64)
    times = times[np.abs(times) <= _LATEST]
    warnings["values_ignored"] += len(listed) - len(times)
    if (np.diff(times) < 0).any():
        warnings["token_times_not_rising"] += 1
        times.sort()
    if len(times) and times[0] < start:
        warnings["requests_with_tokens_before_start"] += 1
        times = np.maximum(times, start)
    return times


def _first_and_end(line: Fields, start: float, times: Floats, warnings: Warnings) -> tuple[float | None, float]:
    """When its first token came and when it ended: never before what came before."""
    first: float | None = line.time("first_token_s")
    if len(times):
        first = float(times[0])
    elif first is not None and first < start:
        warnings["requests_with_tokens_before_start"] += 1
        first = start
    latest = float(times[-1]) if len(times) else (first or start)
    end: float | None = line.time("end_s")
    if end is None:
        warnings["requests_without_end"] += 1
    elif end < latest:
        warnings["requests_that_end_too_early"] += 1
    return first, max(latest, latest if end is None else end)
