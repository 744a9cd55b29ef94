"""Ties a load test to Locust's life: prepare, begin, end."""

from __future__ import annotations

import logging
import secrets
import signal
import sys
import time
from typing import Any, Final, Protocol, cast

import gevent
from gevent.lock import BoundedSemaphore
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner

from loadgen._conclude import Beginning, begin, check, conclude, show
from loadgen._errors import LoadError
from loadgen._gateway import Prepared, prepare
from loadgen._harvest import Harvest, Outcome
from loadgen._locust import fire_request
from loadgen._options import set_user_count
from loadgen._plan import Plan
from loadgen._run import Share, refuse_unfit
from loadgen._saturation import find_saturation
from loadgen._sender import Sender
from loadgen._shared import DRAIN_S
from loadgen._terminal import Glance, Progress
from loadgen._ui._tabs import Tabs
from loadgen._worker import WorkerSession
from loadgen._workers import Workers

__all__ = ["LoadSession", "Session", "attach", "session_of"]

_ATTRIBUTE: Final = "load_session"
_ALONE: Final = Share(index=0, of=1)


class Session(Protocol):
    """One Locust process's part in a test."""

    def attach(self) -> None: ...

    def work(self) -> None:
        """A user's task. Raises `StopUser` when there is nothing more to send."""


def attach(environment: Any) -> None:
    """Called once by Locust's `init` event; ends the process with status 2 where a headless run cannot begin."""
    worker = isinstance(environment.runner, WorkerRunner)
    session: Session = WorkerSession(environment) if worker else LoadSession(environment)
    setattr(environment, _ATTRIBUTE, session)
    session.attach()


def session_of(environment: Any) -> Session:
    return cast("Session", getattr(environment, _ATTRIBUTE))


class LoadSession:
    """A master, or a Locust without workers. Every method runs in a greenlet of Locust's."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._options = environment.parsed_options
        master = isinstance(environment.runner, MasterRunner)
        self._workers = Workers(environment, self._end_test) if master else None
        self._sender: Sender | None = None
        self._prepared: tuple[Plan, Prepared] | None = None
        self._beginning: Beginning | None = None
        self._problem: LoadError | None = None
        self._interrupted = False
        self._outcome: Outcome | None = None
        self._ending = BoundedSemaphore()
        self._progress: Progress | None = None
        self._tabs = Tabs(environment) if environment.web_ui is not None else None
        self._began_at = 0.0

    # --- wiring -------------------------------------------------------------------------------------------------------

    def attach(self) -> None:
        set_user_count(self._options)
        if self._options.find_saturation:
            self._search()
        events = self._environment.events
        gevent.signal_handler(signal.SIGINT, self._on_interrupt)
        events.test_start.add_listener(self._on_start)
        events.test_stopping.add_listener(self._on_stopping)
        events.test_stop.add_listener(self._on_stop)
        events.quitting.add_listener(self._on_quitting)
        events.quit.add_listener(self._on_quit)
        if self._workers is not None:
            self._workers.attach()
        if self._tabs is not None:
            self._tabs.attach()
        if self._environment.stop_timeout == 0:
            self._environment.stop_timeout = DRAIN_S
        logging.getLogger("httpx").setLevel(logging.WARNING)
        if self._options.headless:
            self._prepare_early()

    def _search(self) -> None:
        """In place of a run of its own."""
        try:
            status = find_saturation(self._options, self._plan())
        except LoadError as exc:
            sys.stderr.write(f"{exc}\n")
            status = 2
        sys.exit(status)

    def _prepare_early(self) -> None:
        """Before --run-time counts. A master must first have its workers, to be able to send them away."""
        try:
            self._prepared = self._prepare()
        except LoadError as exc:
            self._problem = exc
            if self._workers is None:
                sys.stderr.write(f"{exc}\n")
                sys.exit(2)

    def _prepare(self) -> tuple[Plan, Prepared]:
        plan = self._plan()
        check(plan)
        prepared = prepare(plan)
        refuse_unfit(plan, prepared)
        return plan, prepared

    def _plan(self) -> Plan:
        return Plan.of(self._options, host=self._environment.host, fresh_salt=lambda: secrets.token_hex(4))

    # --- one test -----------------------------------------------------------------------------------------------------

    def work(self) -> None:
        if self._sender is None:
            raise StopUser
        self._sender.work()

    def _end_test(self) -> None:
        runner = self._environment.runner
        gevent.spawn(runner.quit if self._options.headless else runner.stop)

    def _on_start(self, environment: Any, **_: Any) -> None:
        self._sender, self._outcome = None, None
        try:
            self._begin()
        except LoadError as exc:
            sys.stderr.write(f"{exc}\n")
            self._prepared, self._beginning = None, None
            if self._workers is not None:
                self._workers.forget()
            environment.process_exit_code = 2
            self._end_test()

    def _begin(self) -> None:
        if self._problem is not None:
            raise self._problem
        # Prepared already if headless; the web page may have changed every option since.
        plan, prepared = self._prepared if self._prepared and self._options.headless else self._prepare()
        self._prepared = plan, prepared
        self._beginning = begin(plan, prepared)
        self._began_at = time.monotonic()
        if self._options.headless:
            self._progress = Progress(plan, self._glance)
            self._progress.start()
        if self._tabs is not None:
            self._tabs.begin(plan, lambda: self._glance().records)
        if self._workers is not None:
            self._workers.begin(plan, prepared)
            return
        self._sender = Sender(
            plan,
            prepared,
            _ALONE,
            report=lambda record: fire_request(self._environment, record),
            drained=self._end_test,
        )

    def _glance(self) -> Glance:
        elapsed_s = time.monotonic() - self._began_at
        if self._sender is not None:
            run = self._sender.run
            return Glance(elapsed_s=elapsed_s, records=run.records, in_flight=run.in_flight, dropped=run.dropped)
        records = self._workers.harvest.records if self._workers is not None else []
        return Glance(elapsed_s=elapsed_s, records=records, in_flight=None, dropped=None)

    def _on_stopping(self, environment: Any, **_: Any) -> None:
        if self._sender is not None:
            self._sender.stop()
        if self._workers is not None:
            self._workers.stop_and_merge(environment.stop_timeout)

    def _on_stop(self, environment: Any, **_: Any) -> None:
        # The end of the schedule and --run-time may come together: who comes second must not end the process meanwhile.
        with self._ending:
            if self._progress is not None:
                self._progress.stop()
            try:
                self._conclude(environment)
            finally:
                if self._tabs is not None:
                    self._tabs.end(self._outcome)

    def _conclude(self, environment: Any) -> None:
        harvest = self._gather(environment.stop_timeout)
        ended_at = time.monotonic()
        if self._beginning is None or self._outcome is not None or not harvest.processes:
            return
        self._outcome = conclude(self._beginning, harvest, ended_at=ended_at, interrupted=self._interrupted)
        if not self._options.headless:
            show(self._outcome)

    def _gather(self, drain_s: float) -> Harvest:
        if self._workers is not None:
            for problem in self._workers.problems:
                sys.stderr.write(f"A worker could not begin: {problem}\n")
                self._environment.process_exit_code = 2
            return self._workers.harvest
        harvest = Harvest()
        sender, self._sender = self._sender, None
        if sender is not None:
            harvest.add_run(sender.close(drain_s))
        return harvest

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
