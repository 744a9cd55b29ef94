"""Watches the gateway from beside while a run goes: joules, metrics, the announcement."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import gevent
from gevent.event import Event

from loadgen._announce import Announcement
from loadgen._control import Control, RefusedError
from loadgen._energy import Counters, EnergyReport, counters_of, read_counters, settled_counters
from loadgen._energy_join import Dated, RequestEnergy, energy_window, model_energies, settled_energies
from loadgen._errors import LoadError
from loadgen._gateway import Prepared
from loadgen._plan import Plan
from loadgen._record import Record
from loadgen._server_metrics import Reading, ServerSeries, server_report
from loadgen._summary import Window

__all__ = ["ServerSide", "ServerWatch", "check_control"]

_EVERY_S: Final = 1.0
_MOST_READINGS: Final = 1800
"""Of a long run: then further apart."""
_SETTLE_S: Final = 15.0
"""Longest wait for the server to attribute the run's joules."""
_LEDGER_S: Final = 10.0
"""Longest wait for the last of them to be in the ledger."""
_STOP_S: Final = 15.0
_STARTED_WITHIN_S: Final = 60.0
"""After the watch began: what lies elsewhere is another machine's clock."""
_CLOCKS_APART: Final = timedelta(seconds=5)
"""A `Date` header has whole seconds, and a request may have come just before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSide:
    """What the control plane told of a run; None: nothing, and a note says why."""

    energy: EnergyReport | None = None
    server: Mapping[str, Any] | None = None
    run: Mapping[str, Any] | None = None
    requests: Mapping[str, RequestEnergy] = field(default_factory=dict)
    """By request id: for requests.jsonl."""
    notes: Sequence[str] = ()


def check_control(plan: Plan) -> None:
    """Raises `LoadError` if nothing at the control URL gives joules. A refused key is no reason: load needs none."""
    with suppress(RefusedError):
        read_counters(plan.control, token=plan.control_token)


class ServerWatch:
    """From a run's start to `told`, on the master alone. Only its making may fail a run."""

    def __init__(self, plan: Plan, prepared: Prepared, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begins: announces, scrapes, and goes on scraping each second.

        Raises `LoadError` if nothing answers at the control URL; a key that is refused is a note of the result.
        """
        self._plan, self._clock = plan, clock
        self._api = api = Control(plan.control, plan.control_token)
        self._began_s = clock()
        self._readings: list[Reading] = []
        self._dated: list[Dated] = []
        self._problems: dict[str, LoadError] = {}
        """Why something was not told, the last time."""
        self._first = self._take()
        """All of /metrics, when the measuring began."""
        if api.time is None:
            api.close()
            raise LoadError(f"{self._problems['no joules']} Is it up? Leave --control out to go without.")
        self._since = api.time - _CLOCKS_APART
        """The server's clock: its ledger is asked for what ended later."""
        self._before = self._dated[0][1] if self._dated else None
        self._announcement = Announcement.begin(api, plan, prepared)
        if self._announcement.problem is not None:
            self._problems["not announced"] = self._announcement.problem
        self._notes = list(_sentences(self._problems))
        self._stopping = Event()
        self._greenlet: Any = gevent.spawn(self._poll)

    def end(
        self, records: Sequence[Record], window: Window, *, origins_s: Iterable[float], ended_at: float
    ) -> ServerSide:
        """Everything but the word that the run is over: `told` gives that, once the results are written.

        `origins_s`: CLOCK_MONOTONIC at the run's start, of each process; on other machines that is another clock.
        Takes up to half a minute, while the last joules are attributed.
        """
        self.stop()
        near = (at for at in origins_s if 0 <= at - self._began_s <= _STARTED_WITHIN_S)
        origin = min(near, default=self._began_s)
        energy = self._energy(records, window, origin, ended_at)
        # The last scrape is after the last joules: idle energy is known up to the window's end by then.
        server = self._server(origin)
        requests = self._requests(records) if energy is not None else {}
        if energy is not None:
            energy = self._with_models(energy, records, requests, window, origin)
        run = self._announcement.to_json()
        return ServerSide(energy=energy, server=server, run=run, requests=requests, notes=tuple(self._notes))

    def told(self, *, partial: bool, summary: Path | None) -> None:
        """The run is over, and its results lie there. The last call."""
        self.stop()
        self._announcement.end(self._api, partial=partial, summary=summary)
        self._api.close()

    # --- while it goes ------------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        every = max(_EVERY_S, (self._plan.run_time_s or 0.0) / _MOST_READINGS)
        warming = self._plan.warm_up_s > 0
        while not self._stopping.wait(every):
            reading = self._take()
            if warming and reading is not None and reading.at_s >= self._began_s + self._plan.warm_up_s:
                self._first, warming = reading, False

    def _take(self) -> Reading | None:
        """Whatever answers; why not is kept in `_problems`."""
        until = None
        try:
            until = self._date(counters_of(self._api))
        except LoadError as exc:
            self._problems["no joules"] = exc
        try:
            answer = self._api.get("/metrics")
        except LoadError as exc:
            self._problems["no server metrics"] = exc
            return None
        reading = Reading(self._clock(), answer.content, until)
        self._readings.append(reading.kept)
        return reading

    def _date(self, counters: Counters) -> float | None:
        """When they were true: they end with the last window that is attributed."""
        if counters.closed_until_age_s is None:
            return None
        until = self._clock() - counters.closed_until_age_s
        self._dated.append((until, counters))
        return until

    def stop(self) -> None:
        """Scrape no more."""
        self._stopping.set()
        if self._greenlet is not None:
            self._greenlet.join(_STOP_S)
            self._greenlet.kill()
            self._greenlet = None

    # --- once it is over ----------------------------------------------------------------------------------------------

    def _energy(self, records: Sequence[Record], window: Window, origin: float, ended_at: float) -> EnergyReport | None:
        if self._before is None:
            return None
        try:
            after, settled = settled_counters(
                self._plan.control, ended_at=ended_at, wait_s=_SETTLE_S, token=self._plan.control_token
            )
        except LoadError as exc:
            self._notes.append(str(exc))
            return None
        self._date(after)
        if not settled:
            self._notes.append("Not all energy was attributed when the results were written: the joules are too low.")
        tokens = sum(record.output_tokens_between(window.start_s, window.end_s) for record in records)
        measured = energy_window(
            self._dated, start_s=window.start_s, end_s=window.end_s, origin_s=origin, output_tokens=tokens
        )
        return replace(after.since(self._before), window=measured)

    def _requests(self, records: Sequence[Record]) -> dict[str, RequestEnergy]:
        ids = [record.request_id for record in records if record.ok]
        try:
            return settled_energies(self._api, ids, since=self._since.isoformat(), wait_s=_LEDGER_S)
        except LoadError as exc:
            self._notes.append(f"No joules by request: {exc}")
            return {}

    def _with_models(
        self,
        energy: EnergyReport,
        records: Sequence[Record],
        requests: Mapping[str, RequestEnergy],
        window: Window,
        origin: float,
    ) -> EnergyReport:
        if not requests:
            return energy
        series = ServerSeries(self._readings)
        models = model_energies(
            records,
            requests,
            idle_joules=series.idle_joules(origin + window.start_s, origin + window.end_s),
            tokens_within=lambda record: record.output_tokens_between(window.start_s, window.end_s),
        )
        return replace(energy, models=models, unknown_requests=sum(of.unknown for of in models.values()))

    def _server(self, origin: float) -> dict[str, Any] | None:
        last = self._take()
        if self._first is None or last is None:
            return None
        return server_report(self._first, last, self._readings, origin)


def _sentences(problems: Mapping[str, LoadError]) -> Iterator[str]:
    """What a run lacks, and why; a refused key is one sentence, whatever it costs."""
    refused = [what for what, problem in problems.items() if isinstance(problem, RefusedError)]
    if refused:
        yield f"The control API refuses the key ({', '.join(refused)}): {RefusedError.ADVICE}"
    yield from (f"{what.capitalize()}: {problem}" for what, problem in problems.items() if what not in refused)
