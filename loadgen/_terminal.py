"""A running test in the terminal: how far it is, and what clients feel now."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import gevent
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadgen._histogram import Histogram
from loadgen._plan import Plan
from loadgen._record import Record
from loadgen._report import DASH, count, milliseconds

__all__ = ["Glance", "Progress", "Tally"]

_EVERY_S: Final = 1.0
_WIDTH: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """A test at one moment."""

    elapsed_s: float
    records: Sequence[Record]
    """All that have come so far; later ones are added at the end."""
    in_flight: int | None
    """None: workers do not tell it."""
    dropped: int | None


class Tally:
    """What the records say so far, and since the last look; reads each record once."""

    def __init__(self) -> None:
        self.answered = 0
        self.failed = 0
        self.tokens = 0
        self.new_tokens = 0
        self.new_first_token_s = Histogram()
        self.new_gap_s = Histogram()
        self._seen = 0

    def look(self, records: Sequence[Record]) -> None:
        self.new_tokens, self.new_first_token_s, self.new_gap_s = 0, Histogram(), Histogram()
        for record in islice(records, self._seen, len(records)):
            self._add(record)
        self._seen = len(records)

    def _add(self, record: Record) -> None:
        if not record.ok:
            self.failed += 1
            return
        self.answered += 1
        self.new_tokens += record.output_tokens or 0
        self.tokens += record.output_tokens or 0
        if record.time_to_first_token_s is not None:
            self.new_first_token_s.add(record.time_to_first_token_s)
        if record.time_per_output_token_s is not None:
            self.new_gap_s.add(record.time_per_output_token_s)


class Progress:
    """Redrawn every second, on a terminal alone; a file or a pipe gets nothing."""

    def __init__(self, plan: Plan, glance: Callable[[], Glance], *, console: Console | None = None) -> None:
        self._plan = plan
        self._glance = glance
        self._tally = Tally()
        self._looked_s = 0.0
        console = console or Console(file=sys.stderr)
        # Drawn from a greenlet of ours: rich's own thread would be one of gevent's, and never be let in in time.
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._greenlet: gevent.Greenlet | None = None

    def start(self) -> None:
        if self._live is not None:
            self._live.start()
            self._greenlet = gevent.spawn(self._redraw)

    def stop(self) -> None:
        if self._greenlet is not None and self._live is not None:
            self._greenlet.kill()
            self._live.stop()
        self._greenlet = None

    def drawn(self) -> RenderableType:
        """The next picture."""
        glance = self._glance()
        self._tally.look(glance.records)
        since_s, self._looked_s = glance.elapsed_s - self._looked_s, glance.elapsed_s
        return Group(self._bar(glance), self._figures(glance, since_s))

    def _redraw(self) -> None:
        while self._live is not None:
            gevent.sleep(_EVERY_S)
            self._live.update(self.drawn(), refresh=True)

    def _bar(self, glance: Glance) -> RenderableType:
        line = Table.grid(padding=(0, 1))
        whole_s = self._plan.run_time_s
        if whole_s is None:
            line.add_row(f"{glance.elapsed_s:.0f} s", f"seed {self._plan.seed}")
        else:
            bar = ProgressBar(total=whole_s, completed=min(glance.elapsed_s, whole_s), width=_WIDTH)
            line.add_row(bar, f"{glance.elapsed_s:.0f} of {whole_s:.0f} s")
        if glance.elapsed_s < self._plan.warm_up_s:
            line.add_row(Text("warm-up: nothing is measured yet", style="dim"))
        return line

    def _figures(self, glance: Glance, since_s: float) -> RenderableType:
        tally = self._tally
        table = Table(box=None, pad_edge=False)
        row = {
            "answered": count(tally.answered),
            "failed": count(tally.failed),
            "in flight": count(glance.in_flight),
            "dropped": count(glance.dropped) if self._plan.open_loop else DASH,
            "TTFT p50": milliseconds(tally.new_first_token_s.quantile(0.5)),
            "TPOT p50": milliseconds(tally.new_gap_s.quantile(0.5)),
            "tok/s": count(tally.new_tokens / since_s if since_s > 0 else None),
        }
        for heading in row:
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_row(*row.values())
        return table
