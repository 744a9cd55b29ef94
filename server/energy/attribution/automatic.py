"""Uses the best method that a device allows at the moment, and says which.

Phase time where its gates are open; else the five-term regression, where there is one; else tokens. Where a lasting
large part of the tokens went past the gateway, iterations show only part of the batch, so prices from the engines' own
counters come first. All methods learn from every window, so that a change costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from server.energy.attribution.attribution import Shares, Window
from server.energy.attribution.counter_price import CounterPrice
from server.energy.attribution.five_term import FiveTerm
from server.energy.attribution.gates import closed_gates
from server.energy.attribution.phase_time import PhaseTime
from server.energy.attribution.token_share import TokenShare

__all__ = ["Automatic"]

_FALL_AFTER: Final = 3
"""Windows in a row with a closed gate: one may be an accident."""
_RISE_AFTER: Final = 10
"""Windows in a row with all gates open."""
_MEMORY: Final = 0.97
"""Of the foreign part of the tokens, for each window: half a minute."""
_MUCH_FOREIGN: Final = 0.2
_LITTLE_FOREIGN: Final = 0.1

_Method = PhaseTime | FiveTerm | CounterPrice | TokenShare


@dataclass(slots=True)
class _Device:
    seen: bool = False
    """Phase time is in use."""
    closed: int = 0
    opened: int = 0
    foreign: float = 0.0
    ours: float = 0.0
    shared: bool = False
    """With others than this gateway."""

    def judge(self, gates: list[str]) -> None:
        self.closed, self.opened = (self.closed + 1, 0) if gates else (0, self.opened + 1)
        if self.closed >= _FALL_AFTER:
            self.seen = False
        elif self.opened >= _RISE_AFTER:
            self.seen = True

    def count(self, window: Window) -> None:
        foreign = sum(engine.foreign_millitokens for engine in window.engines)
        self.foreign = _MEMORY * self.foreign + foreign
        self.ours = _MEMORY * self.ours + float(window.requests.millitokens.sum())
        part = self.foreign / max(1.0, self.foreign + self.ours)
        self.shared = part > (_LITTLE_FOREIGN if self.shared else _MUCH_FOREIGN)


class Automatic:
    """Method `automatic`; `method` and `confidence` are those of the last window."""

    name: Final = "automatic"

    def __init__(self) -> None:
        self._phase_time = PhaseTime()
        self._five_term = FiveTerm()
        self._counter_price = CounterPrice()
        self._token_share = TokenShare()
        self._devices: dict[str, _Device] = {}
        self._used: _Method = self._token_share
        self._confidence = TokenShare.confidence

    @property
    def method(self) -> str:
        return self._used.method

    @property
    def confidence(self) -> float:
        return self._confidence

    def learn(self, window: Window) -> None:
        """As `attribute` does, without sharing anything out."""
        for method in (self._phase_time, self._five_term, self._counter_price):
            method.learn(window)
        self._judge(window)

    def attribute(self, window: Window) -> Shares:
        # The choice rests on the windows before: the method that is chosen learns from this one as it shares it out.
        used = self._choose(window)
        for method in (self._phase_time, self._five_term, self._counter_price):
            if method is not used:
                method.learn(window)
        shares = used.attribute(window)
        self._judge(window)
        self._used, self._confidence = used, shares.confidence
        return shares

    def marginal_output_token(self, engine: str) -> float | None:
        """µJ that one more stream adds for each of its tokens; None: iterations are not seen well enough to tell."""
        device = self._phase_time.device_of(engine)
        if device is None or not self._devices.get(device, _Device()).seen:
            return None
        return self._phase_time.marginal_output_token(engine)

    def _judge(self, window: Window) -> None:
        device = self._devices.setdefault(window.device, _Device())
        device.count(window)
        device.judge(closed_gates(self._phase_time, window))

    def _choose(self, window: Window) -> _Method:
        device = self._devices.setdefault(window.device, _Device())
        if device.shared:
            return self._counter_price if self._counter_price.trusted(window.device) else self._token_share
        if device.seen:
            return self._phase_time
        return self._five_term if self._five_term.trusted(window.device) else self._token_share
