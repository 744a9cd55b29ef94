"""A Locust worker: sends its share, reports to the master."""

from __future__ import annotations

import signal
from typing import Any

import gevent
from locust.exception import StopUser

from loadgen._errors import LoadError
from loadgen._harvest import run_counts
from loadgen._locust import fire_request
from loadgen._run import Run
from loadgen._sender import Sender
from loadgen._shared import DRAIN_S, LOAD_DONE, LOAD_FINAL, LOAD_RECORDS, LOAD_STOP, SHARED, Shared

__all__ = ["WorkerSession"]


class WorkerSession:
    """Every method runs in a greenlet of Locust's."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._sender: Sender | None = None

    def attach(self) -> None:
        events, runner = self._environment.events, self._environment.runner
        gevent.signal_handler(signal.SIGINT, self._on_interrupt)
        events.test_start.add_listener(self._on_start)
        events.test_stopping.add_listener(self._on_stopping)
        events.test_stop.add_listener(self._on_stop)
        events.report_to_master.add_listener(self._on_report)
        runner.register_message(LOAD_STOP, self._on_load_stop, concurrent=True)

    def work(self) -> None:
        if self._sender is None:
            raise StopUser
        self._sender.work()

    def _on_interrupt(self) -> None:
        """Ctrl-C in a terminal reaches a master and the workers that it has forked alike: the master ends the test."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._sender is None or self._environment.parsed_options.processes is None:
            self._environment.runner.quit()

    def _on_start(self, environment: Any, **_: Any) -> None:
        self._sender = None
        said = vars(environment.parsed_options).get(SHARED)
        if said is None:
            return
        shared, runner = Shared.from_json(said), environment.runner
        try:
            self._sender = Sender(
                shared.plan,
                shared.prepared,
                shared.share(runner.worker_index),
                report=lambda record: fire_request(environment, record),
                drained=lambda: runner.send_message(LOAD_DONE),
                origin=shared.origin_here(),
            )
        except LoadError as exc:
            # The master has read the same files; here they may lie elsewhere.
            runner.send_message(LOAD_FINAL, {"problem": str(exc)})

    def _on_stopping(self, **_: Any) -> None:
        if self._sender is not None:
            self._sender.stop()

    def _on_stop(self, environment: Any, **_: Any) -> None:
        sender, self._sender = self._sender, None
        if sender is not None:
            run = sender.close(environment.stop_timeout or DRAIN_S)
            environment.runner.send_message(LOAD_FINAL, {**run_counts(run), **_drain(run)})

    def _on_report(self, data: dict[str, Any], **_: Any) -> None:
        if self._sender is not None:
            data.update(_drain(self._sender.run))

    def _on_load_stop(self, environment: Any, **_: Any) -> None:
        environment.runner.stop()


def _drain(run: Run) -> dict[str, Any]:
    records, run.records = run.records, []
    return {LOAD_RECORDS: [record.to_json() for record in records]}
