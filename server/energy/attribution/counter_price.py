"""Prices tokens by the engine's own counters: for engines that several gateways share.

Joules = idle watts · time + a price for each computed prompt token + one for each output token, fitted over windows to
what the engine itself counted. The idle watts of a window in which anybody ran are added to the prices, by tokens. Our
requests pay for theirs; the rest ran for others and is `unattributed`. Why confidence is low: a mean price knows
neither batch sizes nor adapters.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from server.energy.attribution.apportion import Expected, apportion
from server.energy.attribution.attribution import Floats, Shares, Window
from server.energy.attribution.history import History
from server.energy.attribution.nnls import robust_fit
from server.energy.attribution.token_share import expected_by_tokens
from server.energy.attribution.tokens import Tokens, tells_times
from server.units import JOULES_PER_MICROJOULE

__all__ = ["CounterPrice"]

_WINDOWS: Final = 600
_LEAST_WINDOWS: Final = 30
_CONFIDENCE: Final = 0.4
_CONFIDENCE_UNFITTED: Final = 0.2
_WORK: Final = np.array([0.1, 1.0])
"""Of a prompt and an output token, as `token_share` counts: where windows do not tell their prices apart."""
_TIE: Final = 0.05
"""How strongly: as much as a window would, of the mean load."""
_TOKEN: Final = 1e-3
"""A millitoken."""


class CounterPrice:
    """Method `counter_price`."""

    method: Final = "counter_price"

    def __init__(self) -> None:
        self._devices: dict[str, _Prices] = {}
        self.confidence = _CONFIDENCE_UNFITTED

    def learn(self, window: Window) -> None:
        """As `attribute` does, without sharing anything out."""
        if window.other_cpu_us is None and tells_times(window) and window.end > window.start:
            counted = _counted(window, Tokens.of(window)).sum(axis=0)
            self._devices.setdefault(window.device, _Prices()).learn(
                window.energy * JOULES_PER_MICROJOULE, window.end - window.start, counted
            )

    def trusted(self, device: str) -> bool:
        """There are prices of enough windows."""
        prices = self._devices.get(device)
        return prices is not None and prices.terms is not None

    def attribute(self, window: Window) -> Shares:
        self.learn(window)
        prices = self._devices.get(window.device)
        expected, self.confidence = expected_by_tokens(window), _CONFIDENCE_UNFITTED
        if prices is not None and prices.terms is not None and window.other_cpu_us is None and tells_times(window):
            expected, self.confidence = _expect(window, prices.terms, expected), _CONFIDENCE
        return apportion(window, expected, method=self.method, confidence=self.confidence)


class _Prices:
    """Of one device."""

    def __init__(self) -> None:
        self._history = History(_WINDOWS, 4)
        self.terms: Floats | None = None
        """Idle watts, joules of a prompt token, of an output token."""

    def learn(self, joules: float, seconds: float, counted: Floats) -> None:
        self._history.add(np.array([[joules, seconds, *counted]]) / seconds)
        if len(self._history) < _LEAST_WINDOWS or not self._history.due():
            return
        rows = self._history.rows
        tie = _TIE * float(rows[:, 2].mean()) * np.array([[0.0, 1.0, -_WORK[0]]])
        terms, _ = robust_fit(rows[:, 1:], rows[:, 0], tie)
        self.terms = terms if terms.any() else None


def _counted(window: Window, tokens: Tokens) -> Floats:
    """(engines, 2): prompt and output tokens; of an engine that does not say, ours and those known to be foreign."""
    rows = []
    for place, engine in enumerate(window.engines):
        mine = window.requests.engine == place
        prompt, output = engine.counted_prompt_tokens, engine.counted_output_tokens
        rows.append(
            (
                float(tokens.prompt[mine].sum()) if prompt is None else prompt,
                float(tokens.output[mine].sum()) + engine.foreign_millitokens * _TOKEN if output is None else output,
            )
        )
    return np.array(rows, np.float64).reshape(-1, 2)


def _ours(window: Window, tokens: Tokens) -> Floats:
    """(engines, 2): prompt and output tokens that this gateway saw."""
    columns = (np.bincount(window.requests.engine, one, len(window.engines)) for one in (tokens.prompt, tokens.output))
    return np.column_stack([*columns])


def _expect(window: Window, terms: Floats, by_tokens: Expected) -> Expected:
    tokens = Tokens.of(window)
    idle_joules, prices = float(terms[0]) * (window.end - window.start), terms[1:].copy()
    counted = np.maximum(_counted(window, tokens), _ours(window, tokens))
    work = float((counted @ _WORK).sum())
    if work:
        prices += idle_joules / work * _WORK
    prefill, decode = tokens.prompt * prices[0], tokens.output * prices[1]
    foreign = (counted - _ours(window, tokens)) @ prices
    if not (prefill.any() or decode.any() or foreign.any()):
        if len(window.requests) or by_tokens.foreign.any():
            return by_tokens
        busy = any(engine.busy for engine in window.engines)
        return Expected(prefill=prefill, decode=decode, foreign=foreign, idle=0.0 if busy else 1.0)
    return Expected(prefill=prefill, decode=decode, foreign=foreign)
