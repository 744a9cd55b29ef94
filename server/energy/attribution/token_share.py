"""Shares joules by tokens: simple, always possible, and rough.

A device that is shared by CPU time: the idle part goes to the engines that are up, in equal parts; the rest by the CPU
time of each engine's process tree, and what no engine used is `other`. Any other device is one pool. A pool goes to the
requests by the tokens they got in the window and to `unattributed` by those that went past the gateway; without tokens,
by the time that requests were there; without requests, the engines were idle.

Why confidence is low: a token is not a joule. Prompts, batch sizes, context lengths and adapters shift what a token
costs, and on a GPU the idle power of a window goes to whoever ran in it. Against per-step ground truth, output-token
shares were 36 to 67 % off for tenants with long prompts or long answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from server.energy.attribution.attribution import Account, EngineUse, RequestUse, Share, Window
from server.energy.attribution.rounding import split
from server.units import Microjoules

__all__ = ["TokenShare"]


class TokenShare:
    """Method `token_share`."""

    method: Final = "token_share"
    confidence: Final = 0.3
    """What the worst error seen leaves."""

    def attribute(self, window: Window) -> list[Share]:
        baseline = min(window.baseline or Microjoules(0), window.energy)
        up = [engine for engine in window.engines if engine.up]
        shares = _equally(Account.IDLE, up, baseline)
        dynamic = Microjoules(window.energy - baseline)
        if window.other_cpu_us is None:
            shares += _pool(window.engines, window.requests, dynamic, idle=up)
        else:
            shares += _by_cpu_time(window, window.other_cpu_us, dynamic)
        return [share for share in shares if share.energy]


def _by_cpu_time(window: Window, other_cpu_us: int, dynamic: Microjoules) -> list[Share]:
    times = [engine.cpu_us for engine in window.engines]
    if not any(times):
        return [Share(account=Account.OTHER, engine=None, energy=dynamic)]
    *pools, other = split(dynamic, [*times, other_cpu_us])
    shares = [Share(account=Account.OTHER, engine=None, energy=Microjoules(other))]
    for engine, pool in zip(window.engines, pools, strict=True):
        own = [request for request in window.requests if request.engine == engine.engine]
        shares += _pool([engine], own, Microjoules(pool), idle=[engine])
    return shares


def _pool(
    engines: Sequence[EngineUse], requests: Sequence[RequestUse], energy: Microjoules, *, idle: Sequence[EngineUse]
) -> list[Share]:
    weights = [request.millitokens for request in requests] + [engine.foreign_millitokens for engine in engines]
    if not any(weights):
        weights = [request.overlap_us for request in requests] + [0] * len(engines)
    if any(weights):
        parts = [Microjoules(part) for part in split(energy, weights)]
        return [
            *(
                Share(account=Account.ACTIVE, engine=request.engine, request=request.key, energy=part)
                for request, part in zip(requests, parts, strict=False)
            ),
            *(
                Share(account=Account.UNATTRIBUTED, engine=engine.engine, energy=part)
                for engine, part in zip(engines, parts[len(requests) :], strict=True)
            ),
        ]
    busy = [engine for engine in engines if engine.busy]
    return _equally(Account.UNATTRIBUTED, busy, energy) if busy else _equally(Account.IDLE, idle, energy)


def _equally(account: Account, engines: Sequence[EngineUse], energy: Microjoules) -> list[Share]:
    if not engines:
        return [Share(account=account, engine=None, energy=energy)]
    parts = split(energy, [1] * len(engines))
    return [
        Share(account=account, engine=engine.engine, energy=Microjoules(part))
        for engine, part in zip(engines, parts, strict=True)
    ]
