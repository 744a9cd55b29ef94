"""Budgets of tenants: what each has spent in its periods, and who is over a bound.

Tokens count when a request's record comes, joules and grams when they are posted: seconds after they were used, and in
the period in which they became known. Only the active account counts: idle joules are nobody's doing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, Protocol

from server.accounts import Account, Posting, Rates
from server.clock import Clock
from server.config.carbon import BudgetSettings, Period
from server.console import say
from server.errors import WattgateError
from server.telemetry.sources import Sample
from server.units import MICROJOULES_PER_JOULE, Microjoules, Seconds
from server.wire import Budgets as BudgetNews
from server.wire import BudgetState, RequestRecord

__all__ = ["Budgets", "Spending", "SpentSince", "period_around"]

_EVERYBODY: Final = "*"
_RECALL_BOUND: Final = Seconds(10.0)
_CLOCK_SET_BACK: Final = 3600.0
"""A wall clock that falls this far before the period was wrong when the period began."""


class Spending(NamedTuple):
    """Of one tenant in one period."""

    joules: float
    co2e_grams: float
    tokens: int


class SpentSince(Protocol):
    """What tenants spent before this control plane began, by whoever keeps that."""

    def __call__(self, start: Seconds) -> Mapping[str, Spending]:
        """By tenant, since `start` (seconds since the Unix epoch; the full hour, at least).

        Blocks, and is called in a thread. Raises `WattgateError` if nobody can tell.
        """


@dataclass(slots=True)
class _Spent:
    microjoules: int = 0
    grams: float = 0.0
    tokens: int = 0

    @property
    def amounts(self) -> Spending:
        return Spending(self.microjoules / MICROJOULES_PER_JOULE, self.grams, self.tokens)


class _Purse:
    """What all tenants have spent in the period that runs."""

    def __init__(self, period: Period, clock: Clock) -> None:
        self.period = period
        self.spent: dict[str, _Spent] = {}
        self._begin(clock)

    def of(self, tenant: str) -> _Spent:
        found = self.spent.get(tenant)
        if found is None:
            found = self.spent[tenant] = _Spent()
        return found

    def turn(self, clock: Clock) -> bool:
        """Begin anew if the period is over; says whether it was."""
        over = not self.start - _CLOCK_SET_BACK <= clock.wall() < self.end
        if over:
            self.spent.clear()
            self._begin(clock)
        return over

    def _begin(self, clock: Clock) -> None:
        now = clock.wall()
        self.start, self.end = period_around(self.period, now)
        self.ends_at = Seconds(clock.monotonic() + self.end - now)


class Budgets:
    """Takes what is spent, and tells who is over. Without settings it does nothing. Of the event loop."""

    def __init__(self, settings: Sequence[BudgetSettings], clock: Clock) -> None:
        self._clock = clock
        self._rules: dict[str, list[BudgetSettings]] = {}
        for rule in settings:
            self._rules.setdefault(rule.tenant, []).append(rule)
        self._default = self._rules.pop(_EVERYBODY, [])
        self._purses = {period: _Purse(period, clock) for period in dict.fromkeys(rule.period for rule in settings)}
        self._touched: set[str] = set()
        self._over: dict[str, BudgetState] = {}
        self._told: dict[str, BudgetState] | None = None

    async def recall(self, spent_since: SpentSince, announce: Callable[[str], None] = say) -> None:
        """Go on where the control plane before has ended; to be called once, before anything is taken or told.

        What cannot be recalled within ten seconds counts as not spent.
        """
        for purse in self._purses.values():
            purse.turn(self._clock)
            try:
                async with asyncio.timeout(_RECALL_BOUND):
                    found = await asyncio.to_thread(spent_since, purse.start)
            except (WattgateError, TimeoutError) as exc:
                why = str(exc) or f"no answer within {_RECALL_BOUND:g} s"
                announce(f"budgets of the {purse.period} begin with nothing spent: {why}")
                continue
            for tenant, amounts in found.items():
                self._add(purse, tenant, amounts)

    def take_records(self, records: Iterable[RequestRecord]) -> None:
        """Count the tokens of ended requests; what an engine did not tell counts as none."""
        if not self._purses:
            return
        for record in records:
            tokens = (record.prompt_tokens or 0) + (record.output_tokens or 0)
            if tokens and self._rules_of(record.tenant):
                self._touched.add(record.tenant)
                for purse in self._purses.values():
                    purse.of(record.tenant).tokens += tokens

    def take_energy(self, postings: Mapping[Posting, Microjoules], rates: Rates) -> None:
        """Count the joules of requests, and their grams where the intensity is known."""
        if not self._purses:
            return
        for posting, energy in postings.items():
            if posting.account is Account.ACTIVE and self._rules_of(posting.tenant):
                self._touched.add(posting.tenant)
                grams = rates.grams(energy) or 0.0
                for purse in self._purses.values():
                    spent = purse.of(posting.tenant)
                    spent.microjoules += energy
                    spent.grams += grams

    def news(self) -> BudgetNews | None:
        """What workers must know, at the first call and when it has changed; else None. To be called every tick."""
        for purse in self._purses.values():
            if purse.turn(self._clock):
                self._touched.update(self._over)
        for tenant in self._touched:
            state = self._judge(tenant)
            if state is None:
                self._over.pop(tenant, None)
            else:
                self._over[tenant] = state
        self._touched.clear()
        if self._over == self._told:
            return None
        self._told = dict(self._over)
        return BudgetNews(tenants=dict(self._over))

    def spent(self, tenant: str, period: Period) -> Spending | None:
        """In the period that runs; None: no budget has that period."""
        purse = self._purses.get(period)
        return None if purse is None else purse.spent.get(tenant, _Spent()).amounts

    def samples(self) -> Iterator[Sample]:
        """For the exposition; on any thread. Without budgets: nothing."""
        if self._purses:
            states = list(self._over.copy().values())
            yield "wattgate_budgets_over", ("hard",), sum(state.spent for state in states)
            yield "wattgate_budgets_over", ("soft",), sum(not state.spent for state in states)

    def _rules_of(self, tenant: str) -> Sequence[BudgetSettings]:
        return self._rules.get(tenant, self._default)

    def _add(self, purse: _Purse, tenant: str, amounts: Spending) -> None:
        if self._rules_of(tenant):
            self._touched.add(tenant)
            spent = purse.of(tenant)
            spent.microjoules += round(amounts.joules * MICROJOULES_PER_JOULE)
            spent.grams += amounts.co2e_grams
            spent.tokens += amounts.tokens

    def _judge(self, tenant: str) -> BudgetState | None:
        """Of all bounds that the tenant is over, a hard one before a soft one, then the one that lasts longest."""
        states = [state for rule in self._rules_of(tenant) for state in self._states(tenant, rule)]
        return max(states, key=lambda state: (state.spent, state.ends_at), default=None)

    def _states(self, tenant: str, rule: BudgetSettings) -> Iterator[BudgetState]:
        purse = self._purses[rule.period]
        spent = purse.of(tenant).amounts
        for amount, bound, unit in (
            (spent.joules, rule.joules, "J"),
            (spent.co2e_grams, rule.co2e_grams, "g CO2e"),
            (spent.tokens, rule.tokens, "tokens"),
        ):
            if bound is None or amount < rule.soft * bound:
                continue
            whole = f"{bound:.12g} {unit} {'an' if rule.period == 'hour' else 'a'} {rule.period}"
            share = "all" if amount >= bound else f"{100 * rule.soft:.4g} %"
            reason = whole if amount >= bound and rule.hard else f"{share} of {whole}"
            yield BudgetState(spent=amount >= bound and rule.hard, reason=reason, ends_at=purse.ends_at)


def period_around(period: Period, moment: Seconds) -> tuple[Seconds, Seconds]:
    """The start and the end (not included) of the UTC hour, day or month in which the moment lies."""
    now = datetime.fromtimestamp(moment, UTC)
    start = now.replace(minute=0, second=0, microsecond=0)
    match period:
        case "hour":
            end = start + timedelta(hours=1)
        case "day":
            start = start.replace(hour=0)
            end = start + timedelta(days=1)
        case "month":
            start = start.replace(day=1, hour=0)
            end = (start + timedelta(days=32)).replace(day=1)  # no month is longer
    return Seconds(start.timestamp()), Seconds(end.timestamp())
