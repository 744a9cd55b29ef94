"""Load runs that were announced: who puts load on the gateway, when, and where the results lie."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from server.clock import Clock
from server.console import say
from server.errors import NotFoundError
from server.telemetry.sources import Sample
from server.units import Seconds

__all__ = ["Announced", "Announcement", "Runs", "runs_path"]

State = Literal["running", "done", "partial", "lost"]

_KEPT: Final = 100
"""The newest."""
_GRACE: Final = Seconds(600.0)
"""After the time that a run wanted: it drains, and waits for its joules."""
_LONGEST: Final = Seconds(86_400.0)
"""Of a run that did not say how long it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What a generator says of its run before the first request."""

    name: str
    host: str | None = None
    """The machine that makes the load."""
    target: str | None = None
    workload: str | None = None
    arrivals: str | None = None
    rate_per_s: float | None = None
    """None: closed loop."""
    concurrency: int | None = None
    """None: open loop."""
    seed: int | None = None
    salt: str | None = None
    """Requests have the id `load-SALT-NUMBER`."""
    models: tuple[str, ...] = ()
    planned_s: float | None = None
    """None: until it is stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """A run as the control plane knows it; times are wall clock."""

    id: int
    announcement: Announcement
    started: Seconds
    ended: Seconds | None = None
    partial: bool = False
    """Interrupted."""
    summary: str | None = None
    """Where its results lie, on the machine that made the load."""

    def state(self, now: Seconds) -> State:
        """`lost`: its generator went without a word."""
        if self.ended is not None:
            return "partial" if self.partial else "done"
        planned = self.announcement.planned_s
        return "running" if now <= self.started + (_LONGEST if planned is None else planned + _GRACE) else "lost"


def runs_path(state_dir: Path) -> Path:
    """Where they outlive a reload."""
    return state_dir / "runs.json"


class Runs:
    """The newest announcements. All methods return at once; a file that cannot be written costs only the memory."""

    def __init__(self, file: Path, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._runs: dict[int, Announced] = {run.id: run for run in _read(file)}
        self._announced = 0

    def announce(self, announcement: Announcement) -> Announced:
        """Begin a run now."""
        run = Announced(id=max(self._runs, default=0) + 1, announcement=announcement, started=self._clock.wall())
        self._announced += 1
        self._keep(run)
        return run

    def end(self, run_id: int, *, partial: bool = False, summary: str | None = None) -> Announced:
        """A second end changes where the results lie, not when the run ended."""
        run = self._runs.get(run_id)
        if run is None:
            raise NotFoundError(f"No run {run_id} was announced lately; GET /api/runs lists them.")
        ended = self._clock.wall() if run.ended is None else run.ended
        run = replace(run, ended=ended, partial=partial, summary=summary or run.summary)
        self._keep(run)
        return run

    def listed(self) -> Sequence[Announced]:
        """The newest first."""
        return [self._runs[id_] for id_ in sorted(self._runs, reverse=True)]

    def samples(self) -> Iterable[Sample]:
        now = self._clock.wall()
        running = sum(run.state(now) == "running" for run in tuple(self._runs.values()))
        yield "wattgate_load_runs_active", (), float(running)
        yield "wattgate_load_runs_total", (), float(self._announced)

    def _keep(self, run: Announced) -> None:
        # A fresh dictionary: `samples` runs on the thread that renders.
        runs = {**self._runs, run.id: run}
        self._runs = {id_: runs[id_] for id_ in sorted(runs)[-_KEPT:]}
        try:
            fresh = self._file.with_suffix(".new")
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump([asdict(known) for known in self._runs.values()], file)
            fresh.replace(self._file)
        except OSError as exc:
            say(f"announced load runs are not kept in {self._file} ({exc}); a reload will forget them")


def _read(file: Path) -> list[Announced]:
    try:
        return [_run(entry) for entry in json.loads(file.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as exc:
        say(f"{file} cannot be read ({exc}): earlier load runs are not listed")
        return []


def _run(entry: dict[str, Any]) -> Announced:
    announcement = entry["announcement"]
    said = Announcement(**{**announcement, "models": tuple(announcement["models"])})
    return Announced(**{**entry, "announcement": said})
