"""Tenants that are over a bound of their budget, as the control plane last said."""

from __future__ import annotations

from math import ceil
from typing import Final

from server.clock import Clock
from server.errors import BudgetSpentError
from server.units import Seconds
from server.wire import Budgets, BudgetState

__all__ = ["TenantBudgets"]

_PARTS: Final = ((86_400, "d"), (3600, "h"), (60, "min"))


class TenantBudgets:
    """Without a control plane the last word holds until the periods that it speaks of end."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.over: dict[str, tuple[BudgetState, bytes]] = {}
        """By tenant, with the header line that tells; nobody: the path need not ask."""

    def replace(self, news: Budgets) -> None:
        """From now on this holds."""
        self.over = {tenant: (state, _line(state.reason)) for tenant, state in news.tenants.items()}

    def check(self, tenant: str) -> bytes:
        """The header line for the tenant's answers: none, or `x-wattgate-budget`.

        Raises `BudgetSpentError`.
        """
        found = self.over.get(tenant)
        if found is None:
            return b""
        state, line = found
        left = state.ends_at - self._clock.monotonic()
        if left <= 0:
            return b""
        if not state.spent:
            return line
        raise BudgetSpentError(
            f"The budget of the tenant `{tenant[:200]}` is spent: {state.reason}. It begins anew in {_shown(left)}; "
            "wait, or ask the gateway's operator for more.",
            retry_after=Seconds(left),
        )


def _line(reason: str) -> bytes:
    return b"x-wattgate-budget: %b\r\n" % reason.encode("ascii", "replace")


def _shown(seconds: float) -> str:
    """`3 d 4 h`, `4 h 12 min`, `12 min 5 s`, `5 s`: two parts at most."""
    rest = max(1, ceil(seconds))
    parts = []
    for size, unit in _PARTS:
        count, rest = divmod(rest, size)
        parts.append((count, unit))
    parts.append((rest, "s"))
    first = next(index for index, (count, _unit) in enumerate(parts) if count)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count)
