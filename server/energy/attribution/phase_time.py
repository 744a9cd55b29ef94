"""Shares joules by the time that requests took in each iteration, decode and prefill apart.

1. The arrivals of an engine's tokens are clustered into iterations (`iterations.py`).
2. Iterations without prompts tell how long a decoding step lasts (`step_time.py`); what a mixed one took beyond that
   was prefill.
3. Windows tell what idle, decoding and prefilling seconds cost (`power.py`).
4. In an iteration, the fixed part of a step is split equally over all who took part, those who prefilled included: the
   Shapley value of a cost that anybody causes alone. What grows goes to who makes it grow: the adapter term to adapter
   requests, the rest by tokens and context; prefill by prompt tokens that the prefix cache did not hold.
5. All is scaled to the meter; `residual` says by how much.

Engines that share a device are fitted together. A device shared by CPU time needs no watts: an engine's joules follow
its CPU time, and are shared by seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from server.energy.attribution.apportion import Expected, apportion
from server.energy.attribution.attribution import Floats, Shares, Window
from server.energy.attribution.engine_time import EngineTime, EngineUseOfTime
from server.energy.attribution.power import GROWTH, PROMPT, Power
from server.energy.attribution.token_share import expected_by_tokens
from server.energy.attribution.tokens import tells_times
from server.units import JOULES_PER_MICROJOULE

__all__ = ["PhaseTime"]

_CONFIDENCE: Final = 0.9
_CONFIDENCE_SHARED: Final = 0.6
"""Engines that share a device: what one uses may be laid to another."""
_CONFIDENCE_UNFITTED: Final = 0.3
_LEAST_WINDOWS: Final = 30


@dataclass(slots=True)
class _Device:
    power: Power = field(default_factory=Power)
    engines: dict[str, EngineTime] = field(default_factory=dict)
    confidence: float = _CONFIDENCE_UNFITTED


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Read:
    """A window, read."""

    uses: dict[str, EngineUseOfTime]
    covered_s: float
    """Time in which any engine worked."""

    @property
    def busy_s(self) -> float:
        return sum(use.busy_s for use in self.uses.values())


class PhaseTime:
    """Method `phase_time`."""

    method: Final = "phase_time"

    def __init__(self) -> None:
        self._devices: dict[str, _Device] = {}
        self.confidence = _CONFIDENCE_UNFITTED

    def learn(self, window: Window) -> None:
        """As `attribute` does, without sharing anything out."""
        if tells_times(window):
            self._learn(self._devices.setdefault(window.device, _Device()), window)

    def attribute(self, window: Window) -> Shares:
        device = self._devices.setdefault(window.device, _Device())
        expected, residual, self.confidence = expected_by_tokens(window), 0, _CONFIDENCE_UNFITTED
        if tells_times(window):
            read = self._learn(device, window)
            expected, residual = _expect(device, window, read, expected)
            self.confidence = device.confidence
        return apportion(window, expected, method=self.method, confidence=self.confidence, residual=residual)

    def device(self, name: str) -> tuple[Power, dict[str, EngineTime]]:
        """What was learned of it, for whoever judges."""
        device = self._devices.setdefault(name, _Device())
        return device.power, device.engines

    def device_of(self, engine: str) -> str | None:
        """The device that it was last seen on."""
        return next((name for name, device in self._devices.items() if engine in device.engines), None)

    def marginal_output_token(self, engine: str) -> float | None:
        """µJ that one more stream adds for each of its tokens: its own time at decoding power; None: not known."""
        for device in self._devices.values():
            time = device.engines.get(engine)
            if time is not None and device.power.fitted and time.marginal_s is not None:
                watts = device.power.idle_watts + float(device.power.over_idle(engine)[GROWTH])
                return watts * time.marginal_s / JOULES_PER_MICROJOULE
        return None

    def _learn(self, device: _Device, window: Window) -> _Read:
        uses = {
            engine.engine: device.engines.setdefault(engine.engine, EngineTime()).read(window, place)
            for place, engine in enumerate(window.engines)
        }
        read = _Read(uses=uses, covered_s=_covered(uses))
        seen = not any(engine.foreign_millitokens for engine in window.engines)
        seen &= all(device.engines[name].settled for name, use in uses.items() if use.busy_s)
        if window.other_cpu_us is None:
            times = {name: (use.total, use.late) for name, use in uses.items() if use.busy_s}
            device.power.learn(window, times, sound=seen)
            trusted = device.power.windows >= _LEAST_WINDOWS
            alone = sum(engine.up for engine in window.engines) <= 1
        else:
            trusted = any(time.fitted for time in device.engines.values())
            alone = True
        usual = _CONFIDENCE if alone else _CONFIDENCE_SHARED
        device.confidence = usual if trusted else _CONFIDENCE_UNFITTED
        return read


def _expect(device: _Device, window: Window, read: _Read, by_tokens: Expected) -> tuple[Expected, int]:
    """Joules that the model expects, and the µJ by which the meter is above."""
    power, seconds = device.power, window.end - window.start
    prefill, decode = np.zeros(len(window.requests)), np.zeros(len(window.requests))
    foreign, busy = np.zeros(len(window.engines)), 0.0
    # While engines work at the same time, they share what the idle device would use.
    floor = power.idle_watts * (read.covered_s / read.busy_s if read.busy_s else 1.0)
    for place, engine in enumerate(window.engines):
        use = read.uses[engine.engine]
        watts = power.over_idle(engine.engine) + floor
        watts[PROMPT] -= floor  # it lasts no longer for what hides
        prefill += watts @ use.prefill
        decode += watts @ use.decode
        joules = float(watts @ use.total)
        busy += joules
        foreign[place] = joules * _foreign_ratio(window, place)
    if not (prefill.any() or decode.any()):
        prefill, decode = _scaled(by_tokens, busy)
    idle = power.idle_watts * max(0.0, seconds - read.covered_s)
    total = float(prefill.sum() + decode.sum()) + idle
    residual = round(window.energy - total / JOULES_PER_MICROJOULE) if power.fitted and not foreign.any() else 0
    strangers = np.array([engine.foreign_millitokens for engine in window.engines], np.float64)
    if strangers.any():
        # Nobody knows when they ran, so nobody knows that the engines were idle.
        foreign += idle * strangers / strangers.sum()
        idle = 0.0
    if not len(window.requests) and any(engine.busy for engine in window.engines):
        idle = 0.0
    return Expected(prefill=prefill, decode=decode, foreign=foreign, idle=idle), residual


def _scaled(by_tokens: Expected, joules: float) -> tuple[Floats, Floats]:
    """Of time in which nobody was seen at work: tokens decide, as far as there are any."""
    weights = float(by_tokens.prefill.sum() + by_tokens.decode.sum())
    scale = joules / weights if weights else 0.0
    return by_tokens.prefill * scale, by_tokens.decode * scale


def _foreign_ratio(window: Window, place: int) -> float:
    """Output that went past the gateway, for each token of ours."""
    foreign = window.engines[place].foreign_millitokens
    if not foreign:
        return 0.0
    requests = window.requests
    ours = int((requests.millitokens - requests.prompt_millitokens)[requests.engine == place].sum())
    return foreign / max(1, ours)


def _covered(uses: dict[str, EngineUseOfTime]) -> float:
    """Seconds in which any of them worked."""
    busy = [use for use in uses.values() if use.busy_s]
    if len(busy) < 2:
        return sum(use.busy_s for use in busy)
    begin, end = np.concatenate([use.begin for use in busy]), np.concatenate([use.end for use in busy])
    order = np.argsort(begin, kind="stable")
    begin, until = begin[order], np.maximum.accumulate(end[order])
    gaps: Floats = np.maximum(0.0, begin[1:] - until[:-1])
    return float(until[-1] - begin[0] - gaps.sum())
