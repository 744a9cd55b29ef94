"""One run while it goes: what to send next, and what came back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from loadgen._arrivals import ARRIVALS, Times
from loadgen._gateway import Prepared
from loadgen._plan import Plan
from loadgen._prompts import Prompts
from loadgen._record import Record

__all__ = ["Job", "Run", "Share", "schedule_of"]

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
    model: str
    text: str
    scheduled_s: float
    warm_up: bool


def schedule_of(plan: Plan) -> Times:
    """Every arrival of an open-loop run, over all processes."""
    rng = np.random.default_rng((plan.seed, _STREAM))
    return ARRIVALS[plan.arrivals].schedule(plan.rate, plan.horizon_s, rng)


class Run:
    """The requests of one process. `clock` is CLOCK_MONOTONIC; all times are seconds since the run's start."""

    def __init__(self, plan: Plan, prepared: Prepared, *, share: Share, clock: Callable[[], float]) -> None:
        self.plan = plan
        self.prepared = prepared
        self.records: list[Record] = []
        self.in_flight = 0
        self.dropped = 0
        """Open loop: not sent, since `max_in_flight` were under way."""
        self.unfinished = 0
        """Cut off by the end of the run: neither answered nor failed."""
        self.steady_until_s: float | None = None
        """The last moment at which the load was whole: nothing was sent after it."""
        self.schedule_hash: str | None = None
        self._share = share
        self._prompts = Prompts(seed=plan.seed, salt=plan.salt)
        self._next_index = share.index
        self._measured = 0
        self._clock = clock
        self._origin = clock()

    def now_s(self) -> float:
        return self._clock() - self._origin

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
        self._end_at_limit()
        if self.ended:
            return None
        index, self._next_index = self._next_index, self._next_index + self._share.of
        job = self._job(index, self.now_s())
        self._end_at_limit()
        return job

    def jobs(self) -> Iterator[Job]:
        """Open loop: this process's requests in order; each is due at its `scheduled_s`. Ends with the schedule."""
        schedule = schedule_of(self.plan)
        self.schedule_hash = hashlib.sha256(schedule.tobytes()).hexdigest()[:16]
        for index in range(self._share.index, len(schedule), self._share.of):
            self._end_at_limit()
            if self.ended:
                return
            yield self._job(index, float(schedule[index]))
        self.end()

    def _job(self, index: int, scheduled_s: float) -> Job:
        warm_up = scheduled_s < self.plan.warm_up_s
        self._measured += not warm_up
        model = self.prepared.mix.pick(index, seed=self.plan.seed)
        words = self.prepared.calibrations[model].words(self.plan.prompt_tokens)
        return Job(
            index=index,
            model=model,
            text=self._prompts.text(index, words),
            scheduled_s=scheduled_s,
            warm_up=warm_up,
        )

    def _end_at_limit(self) -> None:
        if self.plan.requests == 0:
            return
        whole, rest = divmod(self.plan.requests, self._share.of)
        if self._measured >= whole + (self._share.index < rest):
            self.end()
