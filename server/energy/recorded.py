"""A recorded trace, played against the clock: for demonstrations and tests.

A line is one device at one moment: `{"t_s", "joules_total"}`, and where they are known `device`, `scope`,
`baseline_joules`, `by_cpu_time`; other keys are left alone. `wattgate meter watch --json` writes such lines.
"""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path
from typing import Final

import msgspec

from server.clock import Clock
from server.energy.counter import EnergyCounter
from server.energy.meter import DeviceReading, Reading
from server.errors import MeterError
from server.units import MICROJOULES_PER_JOULE, Joules, Microjoules, Seconds, Watts

__all__ = ["RecordedMeter", "TraceLine", "read_trace"]

_MOST: Final = Watts(1e9)
"""Whatever was recorded is believed."""


class TraceLine(msgspec.Struct, frozen=True, kw_only=True):
    """One device at one moment. `t_s` is any clock that rises."""

    t_s: float
    joules_total: float
    device: str = "gpu:0"
    scope: str = "recorded"
    baseline_joules: float | None = None
    by_cpu_time: bool = False


def read_trace(path: Path) -> list[TraceLine]:
    """The lines in the order of time, without those at which a device's time runs backwards. Raises `MeterError`."""
    lines: list[TraceLine] = []
    latest: dict[str, float] = {}
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, 1):
                line = None if text.isspace() else _parse(text, f"The recording {path}, line {number}")
                if line is not None and line.t_s >= latest.get(line.device, line.t_s):
                    latest[line.device] = line.t_s
                    lines.append(line)
    except OSError as exc:
        raise MeterError(f"The recording {path} cannot be read ({exc}).") from exc
    return sorted(lines, key=attrgetter("t_s"))


def _parse(text: bytes, where: str) -> TraceLine:
    try:
        line = msgspec.json.decode(text, type=TraceLine)
    except msgspec.MsgspecError as exc:
        raise MeterError(f"{where}: {exc}. See docs/meters.md for its form.") from exc
    if min(line.joules_total, line.baseline_joules or 0.0) < 0:
        raise MeterError(f"{where}: joules are never negative.")
    return line


class RecordedMeter:
    """Begins with the first reading, and once its last line has been read it has nothing more to say."""

    kind: Final = "replay"

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._lines: list[TraceLine] | None = None
        self._began_at = Seconds(0.0)
        self._played = 0
        self._ended = False
        self._counters: dict[str, EnergyCounter] = {}
        self._now: dict[str, DeviceReading] = {}

    def read(self) -> Reading:
        lines = self._load()
        if self._ended:
            raise MeterError(f"The recording {self._path} has ended: name another, or choose another meter.")
        moment = lines[0].t_s + self._clock.monotonic() - self._began_at
        while self._played < len(lines) and lines[self._played].t_s <= moment:
            self._play(lines[self._played])
            self._played += 1
        self._ended = self._played == len(lines)
        return Reading(at=self._at(lines[self._played - 1]), devices=tuple(self._now.values()))

    def close(self) -> None:
        """The place in the recording is kept: joules never fall."""

    def _load(self) -> list[TraceLine]:
        if self._lines is None:
            lines = read_trace(self._path)
            if not lines:
                raise MeterError(f"The recording {self._path} is empty: name another.")
            self._lines, self._began_at = lines, self._clock.monotonic()
        return self._lines

    def _at(self, line: TraceLine) -> Seconds:
        assert self._lines is not None
        return Seconds(self._began_at + line.t_s - self._lines[0].t_s)

    def _play(self, line: TraceLine) -> None:
        counter = self._counters.setdefault(line.device, EnergyCounter(most=_MOST))
        joules = counter.advance(Microjoules(round(line.joules_total * MICROJOULES_PER_JOULE)), self._at(line))
        if joules is None:
            return
        before = self._now.get(line.device)
        baseline = line.baseline_joules
        if baseline is not None and before is not None:
            baseline = max(baseline, before.baseline_joules or 0.0)
        self._now[line.device] = DeviceReading(
            device=line.device,
            scope=line.scope,
            joules=joules,
            baseline_joules=None if baseline is None else Joules(baseline),
            by_cpu_time=line.by_cpu_time,
        )
