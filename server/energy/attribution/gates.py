"""Says whether phase time can be trusted on a device at the moment."""

from __future__ import annotations

from typing import Final

from server.energy.attribution.attribution import Window
from server.energy.attribution.engine_time import EngineTime
from server.energy.attribution.phase_time import PhaseTime
from server.energy.attribution.power import Power

__all__ = ["closed_gates"]

_LEAST_WINDOWS: Final = 30
_LEAST_R_SQUARED: Final = 0.97
_SMALL_ERROR: Final = 0.03
"""Of the mean power. Under a steady load there is little to explain, and then a low R² says nothing: a counter that
moves ten times a second errs by some hundredths in a window of a second, whatever the model is."""
_MOST_SPREAD: Final = 1 / 3
"""Of a step: arrivals of one iteration further apart mix with the next one's."""
_MOST_MISSING: Final = 0.15
"""Of the chunks that clusters should hold: then they are parts of iterations. Real engines reach a tenth."""
_MOST_COALESCED: Final = 0.05


def closed_gates(phase_time: PhaseTime, window: Window) -> list[str]:
    """Why not, in words; empty: it can."""
    power, known = phase_time.device(window.device)
    engines = {engine.engine: known[engine.engine] for engine in window.engines if engine.engine in known}
    reasons = [] if window.other_cpu_us is not None else _of_power(power, list(engines))
    for name, engine in engines.items():
        reasons += [f"{name}: {reason}" for reason in _of_arrivals(engine)]
    if not any(engine.fitted for engine in engines.values()):
        reasons.append("no engine's step time is known yet")
    return reasons


def _of_power(power: Power, engines: list[str]) -> list[str]:
    reasons = []
    if power.windows < _LEAST_WINDOWS:
        reasons.append(f"{power.windows} windows of {_LEAST_WINDOWS}")
    elif power.r_squared < _LEAST_R_SQUARED and power.relative_error > _SMALL_ERROR:
        reasons.append(f"R² {power.r_squared:.3f}, error {power.relative_error:.1%}")
    for engine in engines:
        phases = power.phases(engine)
        if phases is not None and phases[1] < phases[0]:
            reasons.append(f"{engine}: prefill takes fewer watts than decoding")
    return reasons


def _of_arrivals(engine: EngineTime) -> list[str]:
    arrivals = sum(sight.arrivals for sight in engine.sights)
    if not arrivals:
        return []
    reasons = []
    coalesced = sum(sight.coalesced for sight in engine.sights) / arrivals
    if coalesced > _MOST_COALESCED:
        reasons.append(f"{coalesced:.0%} of tokens came with the one before")
    missing = 1.0 - arrivals / max(1, sum(sight.expected for sight in engine.sights))
    if missing > _MOST_MISSING:
        reasons.append(f"clusters of arrivals lack {missing:.0%} of the streams")
    spread = sum(sight.spread * sight.arrivals for sight in engine.sights) / arrivals
    if spread > _MOST_SPREAD:
        reasons.append(f"arrivals of an iteration spread over {spread:.2f} of a step")
    return reasons
