"""What the ledger knows of one combination of labels over a period."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from server.accounts import Account, Phase
from server.units import Microjoules

__all__ = ["ACCOUNTS", "GROUPS", "TOKENS", "Group"]

GROUPS: Final = ("tenant", "adapter", "variant", "engine", "model")
"""The labels that sums can be asked for by."""
TOKENS: Final = ("prompt_tokens", "cached_tokens", "output_tokens", "tokens_spared")
ACCOUNTS: Final = (*(account.value for account in Account), Phase.PREFILL.value, Phase.DECODE.value)
"""What a group's energy is told by: the accounts, and the phases of the active one."""


@dataclass(slots=True, kw_only=True)
class Group:
    """What is known of one combination of labels."""

    labels: Mapping[str, str]
    requests: int = 0
    ok: int = 0
    tokens: Counter[str] = field(default_factory=Counter)
    """By kind; one that is not here is unknown."""
    energy: Counter[str] = field(default_factory=Counter)
    """µJ, by `ACCOUNTS`; one that is not here was never booked."""
    scopes: set[str] = field(default_factory=set)
    grams: float | None = None
    grams_of: int = 0
    """µJ: the part of the energy whose grams are known."""
    costs: dict[str, float] = field(default_factory=dict)
    """By currency."""
    cost_of: int = 0

    @property
    def booked(self) -> Microjoules | None:
        """The energy of all accounts."""
        accounts = [self.energy[account] for account in Account if account in self.energy]
        return Microjoules(sum(accounts)) if accounts else None

    def add(self, other: Group) -> None:
        """Take in another group's sums."""
        self.requests += other.requests
        self.ok += other.ok
        self.tokens.update(other.tokens)
        self.energy.update(other.energy)
        self.scopes |= other.scopes
        if other.grams is not None:
            self.grams = (self.grams or 0.0) + other.grams
        self.grams_of += other.grams_of
        for currency, cost in other.costs.items():
            self.costs[currency] = self.costs.get(currency, 0.0) + cost
        self.cost_of += other.cost_of
