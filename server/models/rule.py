"""What a rule is, and what happens when one is broken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from server.errors import IncompatibleError

__all__ = ["Finding", "Rule", "enforce"]

Case = TypeVar("Case")
"""What a rule looks at: a checkpoint or an adapter, on a device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What breaks a rule in this case."""

    found: str
    """A clause without a full stop."""
    instead: str | None = None
    """What would work in this case; None: what the rule says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Generic[Case]):
    """One thing that an engine cannot do."""

    sentence: str
    """For people: what does not work, and why."""
    instead: str
    """What would work; a clause that starts with a verb and ends with a full stop."""
    find: Callable[[Case], Finding | None]
    """None: the rule is kept, or what it needs is unknown. Pure, reads no file."""


def enforce(rules: Mapping[str, Rule[Case]], case: Case) -> None:
    """Raise `IncompatibleError` for the first broken rule, in the table's order."""
    for slug, rule in rules.items():
        finding = rule.find(case)
        if finding is not None:
            raise IncompatibleError(
                f"{rule.sentence} Found: {finding.found}.", rule=slug, instead=finding.instead or rule.instead
            )
