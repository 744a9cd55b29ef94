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

import numpy as np
import numpy.typing as npt

from server.accounts import Account
from server.energy.attribution.attribution import EngineUse, RequestUses, Share, Shares, Window
from server.energy.attribution.rounding import split
from server.units import Microjoules

__all__ = ["TokenShare"]

Integers = npt.NDArray[np.int64]


class TokenShare:
    """Method `token_share`."""

    method: Final = "token_share"
    confidence: Final = 0.3
    """What the worst error seen leaves."""

    def attribute(self, window: Window) -> Shares:
        baseline = min(window.baseline or Microjoules(0), window.energy)
        up = [engine for engine in window.engines if engine.up]
        paid = np.zeros(len(window.requests), np.int64)
        others = _equally(Account.IDLE, up, baseline)
        dynamic = Microjoules(window.energy - baseline)
        if window.other_cpu_us is None:
            everyone = np.arange(len(paid))
            paid, unpaid = _pool(window.engines, window.requests, everyone, dynamic, idle=up)
            others += unpaid
        else:
            others += _by_cpu_time(window, window.other_cpu_us, dynamic, paid)
        return Shares(
            prefill=np.zeros_like(paid),
            decode=paid,
            others=[share for share in others if share.energy],
            method=self.method,
            confidence=self.confidence,
        )


def _by_cpu_time(window: Window, other_cpu_us: int, dynamic: Microjoules, paid: Integers) -> list[Share]:
    """The requests' parts go into `paid`; returns the others."""
    times = [engine.cpu_us for engine in window.engines]
    if not any(times):
        return [Share(account=Account.OTHER, engine=None, energy=dynamic)]
    *pools, other = split(dynamic, np.array([*times, other_cpu_us], np.int64)).tolist()
    shares = [Share(account=Account.OTHER, engine=None, energy=Microjoules(other))]
    for place, (engine, pool) in enumerate(zip(window.engines, pools, strict=True)):
        own = (window.requests.engine == place).nonzero()[0]
        paid[own], unpaid = _pool([engine], window.requests, own, Microjoules(pool), idle=[engine])
        shares += unpaid
    return shares


def _pool(
    engines: Sequence[EngineUse],
    requests: RequestUses,
    which: Integers,
    energy: Microjoules,
    *,
    idle: Sequence[EngineUse],
) -> tuple[Integers, list[Share]]:
    """Share `energy` out among `requests[which]` and `engines`: what each request pays, and the rest."""
    foreign = np.array([engine.foreign_millitokens for engine in engines], np.int64)
    weights = np.concatenate([requests.millitokens[which], foreign])
    if not weights.any():
        weights = np.concatenate([requests.overlap_us[which], np.zeros(len(engines), np.int64)])
    if weights.any():
        parts = split(energy, weights)
        shares = [
            Share(account=Account.UNATTRIBUTED, engine=engine.engine, energy=Microjoules(part))
            for engine, part in zip(engines, parts[len(which) :].tolist(), strict=True)
        ]
        return parts[: len(which)], shares
    busy = [engine for engine in engines if engine.busy]
    rest = _equally(Account.UNATTRIBUTED, busy, energy) if busy else _equally(Account.IDLE, idle, energy)
    return np.zeros(len(which), np.int64), rest


def _equally(account: Account, engines: Sequence[EngineUse], energy: Microjoules) -> list[Share]:
    if not engines:
        return [Share(account=account, engine=None, energy=energy)]
    parts = split(energy, np.ones(len(engines), np.int64)).tolist()
    return [
        Share(account=account, engine=engine.engine, energy=Microjoules(part))
        for engine, part in zip(engines, parts, strict=True)
    ]
