"""What tenants have spent before this control plane began, from the ledger."""

from __future__ import annotations

import math
from collections.abc import Mapping

from server.accounts import Account
from server.clock import Clock
from server.control.budgets import Spending
from server.ledger.ledger import Ledger
from server.ledger.period import Period
from server.units import JOULES_PER_MICROJOULE, Seconds

__all__ = ["LedgerSpending"]


class LedgerSpending:
    """Answers `SpentSince`."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    def __call__(self, start: Seconds) -> Mapping[str, Spending]:
        period = Period(start, math.nextafter(max(start, self._clock.wall()), math.inf)).widened()
        return {
            group.labels["tenant"]: Spending(
                joules=group.energy[Account.ACTIVE.value] * JOULES_PER_MICROJOULE,
                co2e_grams=group.grams or 0.0,
                tokens=group.tokens["prompt_tokens"] + group.tokens["output_tokens"],
            )
            for group in self._ledger.queries.energy(["tenant"], period)
        }
