"""Turns what a method expects into integers that add up to the meter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from server.accounts import Account
from server.energy.attribution.attribution import EngineUse, Floats, Integers, Share, Shares, Window
from server.energy.attribution.rounding import split
from server.units import Microjoules

__all__ = ["Expected", "apportion"]

_MAX_PRODUCT: Final = 2**62
_LEAST_RESOLUTION: Final = 2**31
"""Of weights, where the energy is so large that `split` leaves 64 bits in any case."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Expected:
    """What a method expects of a window, in any unit: only the proportions count."""

    prefill: Floats
    """Of each request."""
    decode: Floats
    """Likewise."""
    foreign: Floats
    """Of each engine: for those who went past the gateway."""
    idle: float = 0.0
    """While nobody ran; without effect where the device is shared by CPU time, as such a meter tells it."""


def apportion(window: Window, expected: Expected, *, method: str, confidence: float, residual: int = 0) -> Shares:
    """What each request pays for prefill and decode, and the others; Σ = `window.energy`.

    A device that is shared by CPU time: what it uses when idle goes to the engines that are up, in equal parts; the
    rest by the CPU time of each engine's process tree, and what no engine used is `other`. Others are one pool.
    """
    paid = np.zeros((2, len(window.requests)), np.int64)
    everyone = np.arange(len(window.requests))
    up = [engine for engine in window.engines if engine.up]
    if window.other_cpu_us is None:
        others = _pool(window.engines, expected, everyone, window.energy, paid)
        idle = sum(share.energy for share in others if share.account is Account.IDLE)
        others = [share for share in others if share.account is not Account.IDLE]
        others += _equally(Account.IDLE, up, Microjoules(idle))
    else:
        baseline = min(window.baseline or Microjoules(0), window.energy)
        others = _equally(Account.IDLE, up, baseline)
        others += _by_cpu_time(window, window.other_cpu_us, Microjoules(window.energy - baseline), expected, paid)
    return Shares(
        prefill=paid[0],
        decode=paid[1],
        others=[share for share in others if share.energy],
        method=method,
        confidence=confidence,
        residual=residual,
    )


def _by_cpu_time(
    window: Window, other_cpu_us: int, dynamic: Microjoules, expected: Expected, paid: Integers
) -> list[Share]:
    times = [engine.cpu_us for engine in window.engines]
    if not any(times):
        return [Share(account=Account.OTHER, engine=None, energy=dynamic)]
    *pools, other = split(dynamic, np.array([*times, other_cpu_us], np.int64)).tolist()
    shares = [Share(account=Account.OTHER, engine=None, energy=Microjoules(other))]
    for place, (engine, pool) in enumerate(zip(window.engines, pools, strict=True)):
        own = (window.requests.engine == place).nonzero()[0]
        alone = Expected(
            prefill=expected.prefill, decode=expected.decode, foreign=expected.foreign[place : place + 1], idle=0.0
        )
        shares += _pool([engine], alone, own, Microjoules(pool), paid)
    return shares


def _pool(
    engines: Sequence[EngineUse], expected: Expected, which: Integers, energy: Microjoules, paid: Integers
) -> list[Share]:
    """Share `energy` among the requests `which`, whose parts go into `paid`, and the engines."""
    weights = np.concatenate([expected.prefill[which], expected.decode[which], expected.foreign, [expected.idle]])
    parts = _split(energy, weights)
    if parts is None:
        busy = [engine for engine in engines if engine.busy]
        if busy:
            return _equally(Account.UNATTRIBUTED, busy, energy)
        return _equally(Account.IDLE, engines, energy)
    count = len(which)
    paid[0, which], paid[1, which] = parts[:count], parts[count : 2 * count]
    *foreign, idle = parts[2 * count :].tolist()
    shares = [
        Share(account=Account.UNATTRIBUTED, engine=engine.engine, energy=Microjoules(part))
        for engine, part in zip(engines, foreign, strict=True)
    ]
    return [*shares, *_equally(Account.IDLE, engines, Microjoules(idle))]


def _split(energy: Microjoules, weights: Floats) -> Integers | None:
    """None: there is no weight."""
    largest = float(weights.max(initial=0.0))
    if not largest > 0.0:
        return None
    resolution = max(_LEAST_RESOLUTION, _MAX_PRODUCT // max(1, energy))
    # Below 2^53, so that what comes from floats is as exact as they are.
    return split(energy, np.rint(weights * (min(resolution, 2**52) / largest)).astype(np.int64))


def _equally(account: Account, engines: Sequence[EngineUse], energy: Microjoules) -> list[Share]:
    if not engines:
        return [Share(account=account, engine=None, energy=energy)]
    parts = split(energy, np.ones(len(engines), np.int64)).tolist()
    return [
        Share(account=account, engine=engine.engine, energy=Microjoules(part))
        for engine, part in zip(engines, parts, strict=True)
    ]
