"""A meter's readings from a file, and the windows that they make."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from server.energy.devices import MIN_WINDOW
from server.energy.replay.lines import Warnings, read_lines

__all__ = ["DeviceTrace", "read_meter"]

_MOST_JOULES: Final = 1e12
"""Far above what any counter has seen; in microjoules it still fits into 64 bits."""
_GAP: Final = 5.0
"""Of the usual distance between readings: from there it is a gap."""
_ONLY_DEVICE: Final = "device"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class DeviceTrace:
    """A device's readings at the borders of its windows."""

    name: str
    times: Floats
    """Ascending."""
    joules: Floats
    """The counter; where it falls, it was set back."""


def read_meter(path: Path, warnings: Warnings) -> list[DeviceTrace]:
    """By device, in the order of their first lines. Raises `TraceError` for lines that are no JSON objects."""
    readings: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for fields in read_lines(path, warnings):
        at, joules = fields.time("t_s"), fields.amount("joules_total", _MOST_JOULES)
        if at is None or joules is None:
            warnings["meter_lines_ignored"] += 1
            continue
        of_device = readings[fields.text("device") or _ONLY_DEVICE]
        if of_device and at <= of_device[-1][0]:
            warnings["meter_times_not_rising"] += 1
            continue
        of_device.append((at, joules))
    return [_trace(name, np.array(of_device), warnings) for name, of_device in readings.items()]


def _trace(name: str, readings: Floats, warnings: Warnings) -> DeviceTrace:
    times, joules = readings[:, 0], readings[:, 1]
    apart, fell = np.diff(times), np.diff(joules) < 0
    wide = apart >= MIN_WINDOW
    warnings["meter_resets"] += int(fell.sum())
    if len(apart):
        warnings["meter_gaps"] += int((wide & (apart > _GAP * np.median(apart))).sum())
    borders = _borders(times, wide | fell)
    return DeviceTrace(name, times[borders], joules[borders])


def _borders(times: Floats, alone: npt.NDArray[np.bool_]) -> list[int]:
    """Which readings cut windows, if those between which `alone` is true make one of their own.

    The others are joined to windows of a second; what is left at the end of a run goes into its last one.
    """
    borders = []
    begins = 0
    for ends in [*alone.nonzero()[0].tolist(), len(times) - 1]:
        borders += _seconds(times, begins, ends)
        begins = ends + 1
    return borders


def _seconds(times: Floats, begin: int, end: int) -> list[int]:
    """Borders of a run of readings, its first and its last among them."""
    borders = [begin]
    while (following := int(np.searchsorted(times, times[borders[-1]] + MIN_WINDOW))) < end:
        borders.append(following)
    last = borders[-1]
    if last == end:
        return borders
    if len(borders) > 1 and times[end] - times[last] < MIN_WINDOW:
        borders.pop()
    return [*borders, end]
