"""One run while it goes: what to send next, and what came back."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from loadgen._arrivals import MAX_ARRIVALS, TRACE, Times, arrival_process
from loadgen._errors import LoadError
from loadgen._gateway import Prepared
from loadgen._plan import Plan
from loadgen._receive_lag import ReceiveLag
from loadgen._record import Record
from loadgen._workloads import WORKLOADS, Ask

__all__ = ["Job", "Run", "Share", "refuse_unfit", "schedule_of"]

_STREAM: Final = 0x617272
"""Separates the draws of the arrivals from those of prompts and mix under one seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which of the run's requests this process sends: numbers `index`, `index + of`, `index + 2·of`, …"""

    index: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request to send."""

    index: int
    ask: Ask
    scheduled_s: float
    warm_up: bool
    request_id: str
    """Sent as `x-request-id`, by which the server's own record of the request is found."""


def schedule_of(plan: Plan, times_s: Times | None = None) -> Times:
    """Every arrival of an open-loop run, over all processes; `times_s` are those of a trace.

    Raises `LoadError` for a schedule that is too long, or empty.
    """
    process = arrival_process(plan.arrivals, plan.arrivals_options, times_s=times_s)
    if process.expected(plan.rate, plan.horizon_s) > MAX_ARRIVALS:
        raise LoadError(
            f"--rate {plan.rate:g} over {plan.horizon_s:g} s is more than {MAX_ARRIVALS} requests; shorten --run-time."
        )
    schedule = process.schedule(plan.rate, plan.horizon_s, np.random.default_rng((plan.seed, _STREAM)))
    if not len(schedule):
        raise LoadError(
            f"--arrivals {plan.arrivals} gives no request at all within {plan.horizon_s:g} s; "
            "raise --rate or lengthen --run-time"
            + (", or name a workload that reads a trace file." if plan.arrivals == TRACE else ".")
        )
    return schedule


def refuse_unfit(plan: Plan, prepared: Prepared) -> None:
    """Raises `LoadError` where no run can come of them: before anything is announced or sent."""
    workload = WORKLOADS[plan.workload](plan, prepared)
    if plan.open_loop:
        schedule_of(plan, workload.times_s)


class Run:
    """The requests of one process. `clock` is CLOCK_MONOTONIC; all times are seconds since the run's start.

    Raises `LoadError` where plan and workload do not fit.
    """

    def __init__(
        self,
        plan: Plan,
        prepared: Prepared,
        *,
        share: Share,
        clock: Callable[[], float],
        origin: float | None = None,
    ) -> None:
        self.plan = plan
        self.prepared = prepared
        self.workload = WORKLOADS[plan.workload](plan, prepared)
        self.records: list[Record] = []
        self.receive_lag = ReceiveLag(clock)
        """One sample a read, where the kernel stamps what it receives; else what its own watch finds."""
        self.in_flight = 0
        self.sent = 0
        self.max_in_flight = math.ceil(plan.max_in_flight / share.of)
        """This process's part of the bound."""
        self.dropped = 0
        """Open loop: not sent, since `max_in_flight` were under way."""
        self.unfinished = 0
        """Cut off by the end of the run: neither answered nor failed."""
        self.steady_until_s: float | None = None
        """The last moment at which the load was whole: nothing was sent after it."""
        self.schedule_times = schedule_of(plan, self.workload.times_s) if plan.open_loop else None
        """Of all processes; None in closed loop."""
        self._share = share
        self._next_index = share.index
        self._measured = 0
        self._clock = clock
        # Last: what was made above must not make the first requests late.
        self.origin = clock() if origin is None else origin
        """CLOCK_MONOTONIC of the run's start."""

    @property
    def schedule_hash(self) -> str | None:
        """Names the schedule; None in closed loop."""
        if self.schedule_times is None:
            return None
        return hashlib.sha256(self.schedule_times.tobytes()).hexdigest()[:16]

    def now_s(self) -> float:
        return self._clock() - self.origin

    @property
    def ended(self) -> bool:
        """Nothing more is to be sent."""
        return self.steady_until_s is not None

    def end(self) -> None:
        """Send nothing more; what is in flight may finish."""
        if self.steady_until_s is None:
            self.steady_until_s = self.now_s()

    def next_job(self) -> Job | None:
        """Closed loop: the next request, due now; None if the run has ended."""
        if self._at_limit():
            self.end()
        if self.ended:
            return None
        index, self._next_index = self._next_index, self._next_index + self._share.of
        job = self._job(index, self.now_s())
        if self._at_limit():
            self.end()
        return job

    def jobs(self) -> Iterator[Job]:
        """Open loop: this process's requests in order; each is due at its `scheduled_s`.

        They may be made ahead of their time: who sends them calls `end` once the last is sent.
        """
        assert self.schedule_times is not None
        for index in range(self._share.index, len(self.schedule_times), self._share.of):
            if self.ended or self._at_limit():
                return
            yield self._job(index, float(self.schedule_times[index]))

    def _job(self, index: int, scheduled_s: float) -> Job:
        warm_up = scheduled_s < self.plan.warm_up_s
        self._measured += not warm_up
        return Job(
            index=index,
            ask=self.workload.ask(index),
            scheduled_s=scheduled_s,
            warm_up=warm_up,
            request_id=f"load-{self.plan.salt}-{index}",
        )

    def _at_limit(self) -> bool:
        if self.plan.requests == 0:
            return False
        whole, rest = divmod(self.plan.requests, self._share.of)
        return self._measured >= whole + (self._share.index < rest)
