"""Which run the tabs show: the one that goes, else the last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from locust.runners import STATE_CLEANUP, STATE_RUNNING, STATE_STOPPED, STATE_STOPPING

from loadgen._harvest import Outcome
from loadgen._plan import Plan
from loadgen._record import Record
from loadgen._slo import Slo
from loadgen._ui._joules import JoulesSoFar
from loadgen._ui._routes import add_routes
from loadgen._ui._row import Row, final_rows
from loadgen._ui._so_far import SoFar
from loadgen._ui._tables import shown

__all__ = ["Tabs"]

_OVER = frozenset({STATE_CLEANUP, STATE_STOPPING, STATE_STOPPED})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Going:
    """A run from its start until its results are made."""

    slo: Slo
    so_far: SoFar
    joules: JoulesSoFar
    records: Callable[[], Sequence[Record]]

    def rows(self) -> list[Row]:
        self.so_far.look(self.records())
        return list(self.so_far.rows(self.joules.report()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Last:
    """A run that is over."""

    slo: Mapping[str, float] | None
    rows: Sequence[Row]
    folder: Path | None
    """Where its results lie; None: it left none."""


class Tabs:
    """On one Locust with a page: the only process, or the master. Costs nothing while nobody looks."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._going: _Going | None = None
        self._last: _Last | None = None

    def attach(self) -> None:
        """Before the page is served."""
        add_routes(self._environment, figures=self.figures, statistics=self.statistics, folder=self._folder)

    def begin(self, plan: Plan, records: Callable[[], Sequence[Record]]) -> None:
        """A run begins; `records` gives all that have come of it. At once after this its first request may be sent."""
        slo, joules = Slo.parse(plan.slo), JoulesSoFar(plan)
        so_far = SoFar(slo, warm_up_s=plan.warm_up_s)
        self._going = _Going(slo=slo, so_far=so_far, joules=joules, records=records)

    def end(self, outcome: Outcome | None) -> None:
        """A run is over, and its results are written. None: it failed to begin, or to make them."""
        going = self._going
        if outcome is not None:
            rows = list(final_rows(outcome.summary, outcome.energy))
            self._last = _Last(slo=outcome.summary["slo"], rows=rows, folder=_folder_of(outcome.summary))
        elif going is not None:
            self._last = _Last(slo=dict(going.slo.bounds_s) or None, rows=going.rows(), folder=None)
        else:
            self._last = None
        self._going = None

    def figures(self) -> dict[str, Any]:
        """Unrounded, for programs: seconds, joules; null where the tabs say n/a."""
        state, slo, rows = self._shown()
        return {"state": state, "slo_s": slo, "rows": [asdict(row) for row in rows]}

    def statistics(self) -> dict[str, Any]:
        """What the page is told beside Locust's own statistics.

        It asks only as long as the state says that the test runs, and takes the last answer for the final one: so the
        test is told to run until its results are made.
        """
        state, _, rows = self._shown()
        actual = self._environment.runner.state
        unfinished = state == "running" and actual in _OVER
        return {"state": STATE_RUNNING if unfinished else actual, "extended_stats": shown(rows)}

    def _shown(self) -> tuple[str, Mapping[str, float] | None, Sequence[Row]]:
        if (going := self._going) is not None:
            rows = going.rows()
            # The run may have ended during the look.
            if self._going is going:
                return "running", dict(going.slo.bounds_s) or None, rows
        if (last := self._last) is not None:
            return "ended", last.slo, last.rows
        return "none", None, ()

    def _folder(self) -> Path | None:
        return self._last.folder if self._last is not None else None


def _folder_of(summary: Mapping[str, Any]) -> Path:
    """As `_conclude.py` names it."""
    name = summary["arguments"]["output"] or f"runs/load-{summary['started'].partition('+')[0].replace(':', '')}"
    return Path(name).resolve()
