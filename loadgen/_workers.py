"""The master's side of its workers: what they brought in, and whether all have."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from gevent.event import Event

from loadgen._gateway import Prepared
from loadgen._harvest import Harvest
from loadgen._plan import Plan
from loadgen._record import Record
from loadgen._shared import LOAD_DONE, LOAD_FINAL, LOAD_RECORDS, LOAD_STOP, SHARED, Shared

__all__ = ["Workers"]

_MERGE_S: Final = 5.0
"""Beyond the drain, for the workers' last reports."""

_log = logging.getLogger("loadgen")


class Workers:
    """One Locust master. `all_done` is called once every worker has sent its part."""

    def __init__(self, environment: Any, all_done: Callable[[], None]) -> None:
        self._environment = environment
        self._all_done = all_done
        self._expected = 0
        self._done = 0
        self._all_merged = Event()
        self.harvest = Harvest()
        self.problems: list[str] = []
        """Why workers could not begin."""

    def attach(self) -> None:
        runner = self._environment.runner
        self._environment.events.worker_report.add_listener(self._on_report)
        runner.register_message(LOAD_FINAL, self._on_final)
        runner.register_message(LOAD_DONE, self._on_done)

    def begin(self, plan: Plan, prepared: Prepared) -> None:
        """Before Locust tells the workers to start: its options carry our word to them."""
        self._expected = max(1, len(self._environment.runner.clients.ready))
        self._done, self._all_merged = 0, Event()
        self.harvest, self.problems = Harvest(), []
        shared = Shared.now(plan, prepared, self._expected)
        vars(self._environment.parsed_options)[SHARED] = shared.to_json()

    def forget(self) -> None:
        """Workers that start nevertheless have nothing to do."""
        vars(self._environment.parsed_options).pop(SHARED, None)

    def stop_and_merge(self, drain_s: float) -> None:
        """Locust's own end does not wait for the workers' last reports."""
        runner = self._environment.runner
        if not runner.clients.all or SHARED not in vars(self._environment.parsed_options):
            return
        runner.send_message(LOAD_STOP)
        if not self._all_merged.wait(drain_s + _MERGE_S):
            _log.error("Not every worker has reported; the results lack its last requests.")

    def _on_report(self, data: Mapping[str, Any], **_: Any) -> None:
        self.harvest.records.extend(Record.from_json(record) for record in data.get(LOAD_RECORDS, ()))

    def _on_final(self, msg: Any, **_: Any) -> None:
        if "problem" in msg.data:
            self.problems.append(msg.data["problem"])
            self._all_merged.set()
            self._all_done()
            return
        self._on_report(msg.data)
        self.harvest.add_counts(msg.data)
        if self.harvest.processes >= self._expected:
            self._all_merged.set()

    def _on_done(self, **_: Any) -> None:
        self._done += 1
        if self._done == self._expected:
            self._all_done()
