"""Shares joules by a regression over windows: idle time, busy time, prompt, output, context.

It needs no token times, so it stands where iterations cannot be seen. Why confidence is low: its terms rise and fall
together, so a fit that explains nearly all of the meter may still charge tenants a fifth too much or too little. Where
devices are shared by CPU time, and until there is a fit, tokens decide.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from server.energy.attribution.apportion import Expected, apportion
from server.energy.attribution.attribution import Floats, Shares, Window
from server.energy.attribution.history import History
from server.energy.attribution.lives import Lives
from server.energy.attribution.nnls import robust_fit
from server.energy.attribution.token_share import expected_by_tokens
from server.energy.attribution.tokens import Tokens, tells_times
from server.units import JOULES_PER_MICROJOULE

__all__ = ["FiveTerm"]

_TERMS: Final = 5
_WINDOWS: Final = 600
_LEAST_WINDOWS: Final = 30
_CONFIDENCE: Final = 0.5
_CONFIDENCE_UNFITTED: Final = 0.3


class FiveTerm:
    """Method `five_term`."""

    method: Final = "five_term"

    def __init__(self) -> None:
        self._devices: dict[str, _Fit] = {}
        self.confidence = _CONFIDENCE_UNFITTED

    def learn(self, window: Window) -> None:
        """As `attribute` does, without sharing anything out."""
        if window.other_cpu_us is None and tells_times(window) and window.end > window.start:
            fit = self._devices.setdefault(window.device, _Fit())
            if not any(engine.foreign_millitokens for engine in window.engines):
                fit.learn(
                    window.energy * JOULES_PER_MICROJOULE, window.end - window.start, _terms(window, Tokens.of(window))
                )

    def trusted(self, device: str) -> bool:
        """There is a fit of enough windows."""
        fit = self._devices.get(device)
        return fit is not None and fit.terms is not None

    def attribute(self, window: Window) -> Shares:
        self.learn(window)
        fit = self._devices.get(window.device)
        expected, residual, self.confidence = expected_by_tokens(window), 0, _CONFIDENCE_UNFITTED
        if fit is not None and fit.terms is not None and window.other_cpu_us is None and tells_times(window):
            expected, residual = _expect(window, fit.terms, expected)
            self.confidence = _CONFIDENCE
        return apportion(window, expected, method=self.method, confidence=self.confidence, residual=residual)


class _Fit:
    """Of one device."""

    def __init__(self) -> None:
        self._history = History(_WINDOWS, _TERMS + 1)
        self.terms: Floats | None = None
        """Watts, watts, and joules for a prompt token, an output token, a token of context."""

    def learn(self, joules: float, seconds: float, terms: Floats) -> None:
        self._history.add(np.append(terms, joules)[None, :] / seconds)
        if len(self._history) >= _LEAST_WINDOWS and self._history.due():
            rows = self._history.rows
            solution, _ = robust_fit(rows[:, :_TERMS], rows[:, _TERMS])
            self.terms = solution if solution.any() else None


def _terms(window: Window, tokens: Tokens) -> Floats:
    """Idle and busy seconds, prompt and output tokens, Σ context."""
    busy = _busy_s(window)
    sums = (float(column.sum()) for column in (tokens.prompt, tokens.output, tokens.context))
    return np.array([window.end - window.start - busy, busy, *sums])


def _busy_s(window: Window) -> float:
    """In which anybody was there."""
    spells = [Lives.of(window, place, 0.0).busy() for place in range(len(window.engines))]
    since = np.concatenate([spell[0] for spell in spells]) if spells else np.zeros(0)
    until = np.concatenate([spell[1] for spell in spells]) if spells else np.zeros(0)
    since, until = np.clip(since, window.start, window.end), np.clip(until, window.start, window.end)
    order = np.argsort(since, kind="stable")
    since, until = since[order], np.maximum.accumulate(until[order])
    if not len(since):
        return 0.0
    return float(until[-1] - since[0] - np.maximum(0.0, since[1:] - until[:-1]).sum())


def _expect(window: Window, terms: Floats, by_tokens: Expected) -> tuple[Expected, int]:
    """Joules that the fit expects, and the µJ by which the meter is above."""
    tokens = Tokens.of(window)
    idle_s, busy_s, *_ = _terms(window, tokens)
    worked = (tokens.prompt + tokens.output) > 0.0
    there = np.where(worked, window.requests.overlap_us, 0).astype(np.float64)
    busy = terms[1] * busy_s * there / max(1.0, float(there.sum()))
    prompt, output = terms[2] * tokens.prompt, terms[3] * tokens.output + terms[4] * tokens.context
    own = prompt + output
    of_prompt = np.where(own > 0.0, prompt / np.where(own > 0.0, own, 1.0), 0.0)
    prefill, decode = prompt + busy * of_prompt, output + busy * (1.0 - of_prompt)
    if not (prefill.any() or decode.any()):
        return by_tokens, 0
    idle, foreign = float(terms[0] * idle_s), by_tokens.foreign
    expected = float(prefill.sum() + decode.sum()) + idle
    if foreign.any():
        # At our tokens' mean price; nobody knows when they ran, so nobody knows that the engines were idle.
        ours = max(1.0, 1e3 * float(tokens.output.sum()))
        foreign = foreign / ours * (expected - idle) + idle * foreign / foreign.sum()
        return Expected(prefill=prefill, decode=decode, foreign=foreign), 0
    residual = round(window.energy - expected / JOULES_PER_MICROJOULE)
    return Expected(prefill=prefill, decode=decode, foreign=foreign, idle=idle), residual
