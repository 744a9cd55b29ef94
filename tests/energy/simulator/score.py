"""How far a method's shares are from the simulator's truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from server.energy.attribution import Attribution
from tests.energy.simulator.run import Run, Seen

__all__ = ["Score", "charge", "score"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Relative errors."""

    tenant: float
    """The worst tenant's sum."""
    median: float
    """Of single requests."""
    adapters: float
    """Of the sum of all requests with an adapter, signed; 0: there is none."""


def charge(run: Run, method: Attribution, seen: Sequence[Seen], *, learn_first: bool = True) -> Floats:
    """(2, requests) joules: prefill, decode. Every window's shares are checked against its meter."""
    if learn_first:
        for one in seen:
            method.learn(one.window)
    paid = np.zeros((2, len(run.requests)))
    for one in seen:
        shares = method.attribute(one.window)
        assert shares.total == one.window.energy
        paid[0, one.numbers] += shares.prefill * 1e-6
        paid[1, one.numbers] += shares.decode * 1e-6
    return paid


def score(run: Run, method: Attribution, seen: Sequence[Seen] | None = None) -> Score:
    """With the method's own calibration on the run itself."""
    paid = charge(run, method, list(run.windows()) if seen is None else seen).sum(axis=0)
    truth = np.array([one.joules for one in run.requests])
    names = np.array([one.asked.tenant for one in run.requests])
    adapters = np.array([one.asked.adapter for one in run.requests])
    tenants = [paid[names == name].sum() / truth[names == name].sum() - 1.0 for name in np.unique(names)]
    return Score(
        tenant=float(np.abs(tenants).max()),
        median=float(np.median(np.abs(paid / truth - 1.0))),
        adapters=float(paid[adapters].sum() / truth[adapters].sum() - 1.0) if adapters.any() else 0.0,
    )
