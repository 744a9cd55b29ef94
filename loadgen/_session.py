"""Ties a load test to Locust's life: alone, or as master and workers."""

from __future__ import annotations

import logging
import secrets
import signal
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

import gevent
from gevent.event import Event
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner

from loadgen._client import dispatch, send
from loadgen._conclude import Beginning, conclude, show
from loadgen._energy import read_counters
from loadgen._errors import LoadError
from loadgen._gateway import Prepared, prepare
from loadgen._harvest import Harvest, Outcome, run_counts
from loadgen._plan import Plan, set_user_count
from loadgen._record import Record
from loadgen._run import Run, Share

__all__ = ["LoadSession", "attach", "session_of"]

_ATTRIBUTE: Final = "load_session"
_SHARED: Final = "load_shared"
"""The option in which the master hands plan and calibration to its workers."""
_DRAIN_S: Final = 10.0
"""Time for requests in flight at the end, where --stop-timeout says nothing."""
_MERGE_S: Final = 5.0

_log = logging.getLogger("loadgen")


def attach(environment: Any) -> None:
    """Called once by Locust's `init` event; ends the process with status 2 where a headless run cannot begin."""
    session = LoadSession(environment)
    setattr(environment, _ATTRIBUTE, session)
    session.attach()


def session_of(environment: Any) -> LoadSession:
    return cast("LoadSession", getattr(environment, _ATTRIBUTE))


class LoadSession:
    """One Locust process. Every method runs in a greenlet of Locust's."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._options = environment.parsed_options
        self._run: Run | None = None
        self._prepared: tuple[Plan, Prepared] | None = None
        self._harvest = Harvest()
        self._stopping = Event()
        self._all_merged = Event()
        self._workers_done = 0
        self._dispatching = False
        self._beginning: Beginning | None = None
        self._problem: LoadError | None = None
        self._interrupted = False
        self._outcome: Outcome | None = None

    # --- wiring -------------------------------------------------------------------------------------------------------

    def attach(self) -> None:
        events, runner = self._environment.events, self._environment.runner
        gevent.signal_handler(signal.SIGINT, self._on_interrupt)
        events.test_start.add_listener(self._on_start)
        events.test_stopping.add_listener(self._on_stopping)
        events.test_stop.add_listener(self._on_stop)
        if isinstance(runner, WorkerRunner):
            events.report_to_master.add_listener(self._on_report)
            runner.register_message("load_stop", self._on_load_stop, concurrent=True)
            return
        events.quitting.add_listener(self._on_quitting)
        events.quit.add_listener(self._on_quit)
        if isinstance(runner, MasterRunner):
            events.worker_report.add_listener(self._on_worker_report)
            runner.register_message("load_final", self._on_worker_final)
            runner.register_message("load_done", self._on_worker_done)
        if self._environment.stop_timeout == 0:
            self._environment.stop_timeout = _DRAIN_S
        set_user_count(self._options)
        logging.getLogger("httpx").setLevel(logging.WARNING)
        if self._options.headless:
            self._prepare_early(runner)

    def _prepare_early(self, runner: Any) -> None:
        """Before --run-time counts. A master must first have its workers, to be able to send them away."""
        try:
            self._prepared = self._prepare()
        except LoadError as exc:
            self._problem = exc
            if not isinstance(runner, MasterRunner):
                sys.stderr.write(f"{exc}\n")
                sys.exit(2)

    def _prepare(self) -> tuple[Plan, Prepared]:
        plan = Plan.of(self._options, host=self._environment.host, fresh_salt=lambda: secrets.token_hex(4))
        if plan.control:
            read_counters(plan.control)
        return plan, prepare(plan)

    # --- one test -----------------------------------------------------------------------------------------------------

    def work(self, client: Any) -> None:
        """A user's task: one request in closed loop, the whole schedule in open loop."""
        run = self._run
        if run is None:
            raise StopUser
        if run.plan.open_loop:
            if not self._dispatching:
                self._dispatching = True
                dispatch(client, run, self._stopping)
                self._finish_if_drained(run)
            raise StopUser
        job = run.next_job()
        if job is None:
            raise StopUser
        send(client, run, job)
        self._finish_if_drained(run)

    def _finish_if_drained(self, run: Run) -> None:
        """Everything that --requests or the schedule asked for is answered: end the test before --run-time does."""
        if not run.ended or run.in_flight > 0 or self._stopping.is_set():
            return
        self._stopping.set()
        if isinstance(self._environment.runner, WorkerRunner):
            self._environment.runner.send_message("load_done")
        else:
            self._end_test()

    def _end_test(self) -> None:
        runner = self._environment.runner
        gevent.spawn(runner.quit if self._options.headless else runner.stop)

    def _on_start(self, environment: Any, **_: Any) -> None:
        self._run, self._outcome, self._harvest = None, None, Harvest()
        self._stopping, self._all_merged = Event(), Event()
        self._workers_done, self._dispatching = 0, False
        runner = environment.runner
        if isinstance(runner, WorkerRunner):
            self._start_worker(runner, vars(environment.parsed_options).get(_SHARED))
            return
        try:
            self._start_here(runner)
        except LoadError as exc:
            sys.stderr.write(f"{exc}\n")
            self._prepared, self._beginning = None, None
            vars(self._options).pop(_SHARED, None)
            environment.process_exit_code = 2
            self._end_test()

    def _start_worker(self, runner: Any, shared: Mapping[str, Any] | None) -> None:
        if shared is not None:
            share = Share(index=runner.worker_index % shared["of"], of=shared["of"])
            self._begin(Plan(**shared["plan"]), Prepared.from_json(shared["prepared"]), share)

    def _start_here(self, runner: Any) -> None:
        if self._problem is not None:
            raise self._problem
        # Prepared already if headless; the web page may have changed every option since.
        plan, prepared = self._prepared if self._prepared and self._options.headless else self._prepare()
        self._prepared = plan, prepared
        self._beginning = Beginning(
            plan=plan,
            prepared=prepared,
            wall=datetime.now(UTC).isoformat(timespec="seconds"),
            energy=read_counters(plan.control) if plan.control else None,
        )
        if isinstance(runner, MasterRunner):
            vars(self._options)[_SHARED] = {
                "plan": {**plan.to_json(), "api_key": plan.api_key},
                "prepared": prepared.to_json(),
                "of": max(1, len(runner.clients.ready)),
            }
        else:
            self._begin(plan, prepared, Share(index=0, of=1))

    def _begin(self, plan: Plan, prepared: Prepared, share: Share) -> None:
        self._run = Run(plan, prepared, share=share, clock=time.monotonic)

    def _on_stopping(self, environment: Any, **_: Any) -> None:
        self._stopping.set()
        if self._run is not None:
            self._run.end()
        runner = environment.runner
        if isinstance(runner, MasterRunner) and self._prepared and runner.clients.all:
            # Locust's own end does not wait for the workers' last reports.
            runner.send_message("load_stop")
            if not self._all_merged.wait(environment.stop_timeout + _MERGE_S):
                _log.error("Not every worker has reported; the results lack its last requests.")

    def _on_stop(self, environment: Any, **_: Any) -> None:
        run, self._run = self._run, None
        if isinstance(environment.runner, WorkerRunner):
            if run is not None:
                environment.runner.send_message("load_final", {**run_counts(run), **_drain(run)})
            return
        ended_at = time.monotonic()
        if run is not None:
            self._harvest.add_run(run)
        if self._beginning is not None and self._harvest.processes:
            self._outcome = conclude(
                self._beginning,
                self._harvest,
                ended_at=ended_at,
                interrupted=self._interrupted,
            )
            if not self._options.headless:
                show(self._outcome)

    # --- master and workers -------------------------------------------------------------------------------------------

    def _on_report(self, data: dict[str, Any], **_: Any) -> None:
        if self._run is not None:
            data.update(_drain(self._run))

    def _on_load_stop(self, environment: Any, **_: Any) -> None:
        environment.runner.stop()

    def _on_worker_report(self, data: Mapping[str, Any], **_: Any) -> None:
        self._harvest.records.extend(Record.from_json(record) for record in data.get("load_records", ()))

    def _on_worker_final(self, environment: Any, msg: Any, **_: Any) -> None:
        self._on_worker_report(msg.data)
        self._harvest.add_counts(msg.data)
        if self._harvest.processes >= vars(environment.parsed_options)[_SHARED]["of"]:
            self._all_merged.set()

    def _on_worker_done(self, environment: Any, **_: Any) -> None:
        self._workers_done += 1
        if self._workers_done == vars(environment.parsed_options)[_SHARED]["of"]:
            self._end_test()

    # --- the end ------------------------------------------------------------------------------------------------------

    def _on_interrupt(self) -> None:
        """In a greenlet of its own: Locust would have Ctrl-C raise in the middle of whichever request runs."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._interrupted = self._beginning is not None
        self._environment.runner.quit()
        if self._environment.web_ui is not None:
            self._environment.web_ui.stop()

    def _on_quitting(self, **_: Any) -> None:
        # Of a run that has come to its own end, the test has stopped before.
        self._interrupted = self._beginning is not None and self._outcome is None

    def _on_quit(self, **_: Any) -> None:
        if self._outcome is not None and self._options.headless:
            show(self._outcome)


def _drain(run: Run) -> dict[str, Any]:
    records, run.records = run.records, []
    return {"load_records": [record.to_json() for record in records]}
