"""Joules of a run so far, and joules per output token by model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

from loadgen._energy import Counters, EnergyReport, read_counters
from loadgen._errors import LoadError
from loadgen._plan import Plan
from loadgen._report import joules_by_id

__all__ = ["JoulesSoFar", "joules_per_token", "total_joules_per_token"]

_EVERY_S: Final = 2.0
"""As often as Locust's page asks, however many pages are open."""


class JoulesSoFar:
    """What the gateway has attributed since this was made; only whoever looks makes it ask."""

    def __init__(self, plan: Plan, *, clock: Callable[[], float] = time.monotonic) -> None:
        """One request, if there is a control URL. Never raises: joules that are not told are unknown."""
        self._plan, self._clock = plan, clock
        self._before = self._read() if plan.control else None
        self._asked_s = clock()
        self._report: EnergyReport | None = None

    def report(self) -> EnergyReport | None:
        """At most two seconds old, or older while an answer is awaited."""
        now = self._clock()
        if self._before is not None and now - self._asked_s >= _EVERY_S:
            # First, since others may look while the answer is awaited.
            self._asked_s = now
            after = self._read()
            self._report = after.since(self._before) if after is not None else None
        return self._report

    def _read(self) -> Counters | None:
        try:
            return read_counters(self._plan.control, token=self._plan.control_token)
        except LoadError:
            return None


def joules_per_token(energy: EnergyReport | None, model: str, served_by: Iterable[str]) -> float | None:
    """Of the model's own measured answers; where they are not known one by one, of the configuration that served."""
    if energy is None:
        return None
    own = energy.models.get(model)
    if own is not None and own.joules_per_output_token is not None:
        return own.joules_per_output_token
    names = list(served_by) or [model]
    return joules_by_id(energy).get(names[0]) if len(names) == 1 else None


def total_joules_per_token(energy: EnergyReport | None) -> float | None:
    """The same of all models: a ratio of sums."""
    if energy is None:
        return None
    own = list(energy.models.values())
    if own and all(of.joules_per_output_token is not None for of in own):
        return _ratio(sum(of.joules for of in own), sum(of.output_tokens for of in own))
    return _ratio(sum(use.active_joules for use in energy.uses), sum(use.output_tokens for use in energy.uses))


def _ratio(joules: float, tokens: int) -> float | None:
    return joules / tokens if tokens else None
