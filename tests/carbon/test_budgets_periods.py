"""Budgets in the control plane: periods, bounds, what is told to workers and when."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from server.accounts import Account, Phase, Posting, Rates
from server.config.carbon import BudgetSettings, Period
from server.control.budgets import Budgets, Spending, period_around
from server.errors import WattgateError
from server.units import Microjoules, Seconds
from server.wire import BudgetState, RequestRecord
from tests.fakes import batches
from tests.fakes.clock import FakeClock

GRAM_A_JOULE = Rates(grams_per_joule=1.0, cost_per_joule=None, currency="EUR", source="configured", kind="average")
UNKNOWN = Rates(grams_per_joule=None, cost_per_joule=None, currency="EUR", source="none", kind="none")


def moment(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def clock_at(text: str) -> FakeClock:
    return FakeClock(wall=moment(text))


def budgets(clock: FakeClock, *entries: Mapping[str, Any]) -> Budgets:
    return Budgets([BudgetSettings.model_validate({"tenant": "acme", **entry}) for entry in entries], clock)


def joules(amount: float, tenant: str = "acme", account: Account = Account.ACTIVE) -> dict[Posting, Microjoules]:
    whose = Posting("gpu:0", "gpu", "a", "m", "bf16", "bf16", "none", tenant, account, Phase.NONE)
    return {whose: Microjoules(round(amount * 1e6))}


def record(prompt: int | None, output: int | None, tenant: str = "acme") -> RequestRecord:
    return batches.record(tenant=tenant, prompt_tokens=prompt, output_tokens=output)


def told(one: Budgets) -> dict[str, BudgetState] | None:
    news = one.news()
    return None if news is None else news.tenants


# --- periods ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("period", "now", "start", "end"),
    [
        ("hour", "2026-03-01T12:34:56.789", "2026-03-01T12:00", "2026-03-01T13:00"),
        ("hour", "2026-12-31T23:59:59", "2026-12-31T23:00", "2027-01-01T00:00"),
        ("day", "2026-03-01T00:00", "2026-03-01T00:00", "2026-03-02T00:00"),
        ("day", "2026-03-29T12:00", "2026-03-29T00:00", "2026-03-30T00:00"),
        ("month", "2026-01-31T23:59:59", "2026-01-01T00:00", "2026-02-01T00:00"),
        ("month", "2026-02-28T12:00", "2026-02-01T00:00", "2026-03-01T00:00"),
        ("month", "2028-02-29T12:00", "2028-02-01T00:00", "2028-03-01T00:00"),
        ("month", "2026-12-15T12:00", "2026-12-01T00:00", "2027-01-01T00:00"),
    ],
)
def test_period_is_the_utc_hour_day_or_month(period: Period, now: str, start: str, end: str) -> None:
    assert period_around(period, Seconds(moment(now))) == (moment(start), moment(end))


@given(st.floats(0, 4e9), st.sampled_from(["hour", "day", "month"]))
def test_periods_join_without_a_gap(now: float, period: Period) -> None:
    start, end = period_around(period, Seconds(now))
    assert start <= now < end
    assert period_around(period, end)[0] == end


@pytest.mark.parametrize(
    ("period", "before", "after"),
    [
        ("hour", "2026-03-01T12:59:58", "2026-03-01T13:00:01"),
        ("day", "2026-03-31T23:59:58", "2026-04-01T00:00:01"),
        ("month", "2026-02-28T23:59:58", "2026-03-01T00:00:01"),
        ("month", "2028-02-29T23:59:58", "2028-03-01T00:00:01"),
    ],
)
def test_budget_begins_anew_with_its_period_and_no_sooner(period: Period, before: str, after: str) -> None:
    clock = clock_at(before)
    one = budgets(clock, {"period": period, "joules": 100})
    one.take_energy(joules(100), UNKNOWN)
    news = told(one)
    assert news is not None
    assert news["acme"].spent
    assert news["acme"].ends_at == pytest.approx(clock.monotonic() + 2)
    clock.advance(1)
    assert told(one) is None
    clock.advance(moment(after) - moment(before) - 1)
    assert told(one) == {}
    assert one.spent("acme", period) == Spending(0, 0, 0)


def test_end_of_the_day_within_a_month_leaves_the_month_as_it_is() -> None:
    clock = clock_at("2026-03-30T23:59:59")
    one = budgets(clock, {"period": "day", "joules": 100}, {"period": "month", "joules": 150, "hard": False})
    one.take_energy(joules(120), UNKNOWN)
    news = told(one)
    assert news is not None
    assert (news["acme"].spent, news["acme"].reason) == (True, "100 J a day")
    clock.advance(2)
    news = told(one)
    assert news is not None
    assert (news["acme"].spent, news["acme"].reason) == (False, "80 % of 150 J a month")
    assert one.spent("acme", "month") == Spending(120, 0, 0)


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_soft_bound_warns_the_hard_one_refuses_and_each_is_told_once() -> None:
    one = budgets(clock_at("2026-03-01T12:00"), {"joules": 1000, "soft": 0.5})
    assert told(one) == {}
    one.take_energy(joules(499.999999), UNKNOWN)
    assert told(one) is None
    one.take_energy(joules(0.000001), UNKNOWN)
    ends_at = 1000.0 + 12 * 3600
    assert told(one) == {"acme": BudgetState(spent=False, reason="50 % of 1000 J a day", ends_at=ends_at)}
    one.take_energy(joules(400), UNKNOWN)
    assert told(one) is None
    one.take_energy(joules(100), UNKNOWN)
    assert told(one) == {"acme": BudgetState(spent=True, reason="1000 J a day", ends_at=ends_at)}
    one.take_energy(joules(1e9), UNKNOWN)
    assert told(one) is None


def test_budget_that_is_not_hard_only_warns() -> None:
    one = budgets(clock_at("2026-03-01T12:00"), {"period": "hour", "tokens": 10, "hard": False})
    one.take_records([record(4, 3), record(None, 3)])
    news = told(one)
    assert news is not None
    assert (news["acme"].spent, news["acme"].reason) == (False, "all of 10 tokens an hour")


def test_tokens_are_prompt_and_output_and_those_that_nobody_told_count_as_none() -> None:
    one = budgets(clock_at("2026-03-01T12:00"), {"tokens": 100})
    one.take_records([record(10, 5), record(None, None), record(10, None), record(99, 99, tenant="other")])
    assert one.spent("acme", "day") == Spending(0, 0, 25)
    assert one.spent("other", "day") == Spending(0, 0, 0)
    assert one.spent("acme", "month") is None


def test_grams_follow_the_intensity_and_do_not_grow_while_it_is_unknown() -> None:
    one = budgets(clock_at("2026-03-01T12:00"), {"co2e_grams": 10})
    one.take_energy(joules(50), UNKNOWN)
    assert told(one) == {}
    one.take_energy(joules(10), GRAM_A_JOULE)
    news = told(one)
    assert news is not None
    assert news["acme"].reason == "10 g CO2e a day"


def test_idle_and_other_joules_are_in_no_budget() -> None:
    one = budgets(clock_at("2026-03-01T12:00"), {"tenant": "*", "joules": 1})
    for account in (Account.IDLE, Account.UNATTRIBUTED, Account.OTHER):
        one.take_energy(joules(100, "none", account), UNKNOWN)
    assert told(one) == {}


def test_of_several_bounds_a_hard_one_goes_first_then_the_one_that_lasts_longest() -> None:
    hour = {"period": "hour", "joules": 10}
    day = {"period": "day", "joules": 20}
    month = {"period": "month", "joules": 1000, "soft": 0.01}
    one = budgets(clock_at("2026-03-01T12:00"), hour, day, month)
    one.take_energy(joules(10), UNKNOWN)
    news = told(one)
    assert news is not None
    assert news["acme"].reason == "10 J an hour"
    one.take_energy(joules(10), UNKNOWN)
    news = told(one)
    assert news is not None
    assert news["acme"].reason == "20 J a day"


def test_two_entries_of_one_period_both_hold() -> None:
    one = budgets(clock_at("2026-03-01T12:00"), {"joules": 10, "hard": False}, {"tokens": 10})
    one.take_energy(joules(10), UNKNOWN)
    news = told(one)
    assert news is not None
    assert not news["acme"].spent
    one.take_records([record(10, 0)])
    news = told(one)
    assert news is not None
    assert (news["acme"].spent, news["acme"].reason) == (True, "10 tokens a day")


def test_star_is_for_every_tenant_without_an_entry_of_its_own() -> None:
    one = budgets(clock_at("2026-03-01T12:00"), {"tenant": "*", "joules": 1}, {"tenant": "acme", "joules": 100})
    for tenant in ("acme", "somebody", "anybody"):
        one.take_energy(joules(5, tenant), UNKNOWN)
    news = told(one)
    assert news is not None
    assert sorted(news) == ["anybody", "somebody"]
    assert {labels[0]: value for _name, labels, value in one.samples()} == {"hard": 2, "soft": 0}


def test_without_budgets_nothing_is_kept_and_workers_are_told_once_that_there_are_none() -> None:
    one = Budgets([], clock_at("2026-03-01T12:00"))
    one.take_records([record(10, 5)])
    one.take_energy(joules(5), GRAM_A_JOULE)
    assert told(one) == {}
    assert told(one) is None
    assert list(one.samples()) == []
    assert one.spent("acme", "day") is None


def test_wall_clock_that_was_set_years_ahead_and_back_again_does_not_stop_the_periods() -> None:
    clock = clock_at("2036-03-01T12:00")
    one = budgets(clock, {"joules": 1})
    one.take_energy(joules(1), UNKNOWN)
    assert told(one)
    clock.advance(moment("2026-03-01T12:00") - moment("2036-03-01T12:00"))
    assert told(one) == {}


def test_wall_clock_that_is_corrected_by_seconds_does_not_begin_a_period_twice() -> None:
    clock = clock_at("2026-03-01T23:59:59")
    one = budgets(clock, {"joules": 10})
    clock.advance(2)
    assert told(one) == {}
    one.take_energy(joules(5), UNKNOWN)
    clock.advance(-2)
    one.news()
    clock.advance(2)
    one.news()
    assert one.spent("acme", "day") == Spending(5, 0, 0)


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.floats(0, 1e6), st.integers(0, 1000), st.floats(0, 30_000)), max_size=40
    ),
    st.sampled_from(["hour", "day", "month"]),
)
def test_what_is_spent_never_falls_within_a_period_and_is_all_that_was_taken_in_it(
    steps: list[tuple[str, float, int, float]], period: Period
) -> None:
    clock = clock_at("2026-01-30T22:30:00")
    one = budgets(clock, {"tenant": "*", "period": period, "joules": 1e5})
    start, sums = period_around(period, clock.wall())[0], {"a": 0, "b": 0}
    for tenant, amount, tokens, passes in steps:
        before = one.spent(tenant, period)
        one.take_energy(joules(amount, tenant), GRAM_A_JOULE)
        one.take_records([record(tokens, 0, tenant)])
        sums[tenant] += round(amount * 1e6)
        spent = one.spent(tenant, period)
        assert before is not None
        assert spent is not None
        assert all(now >= then for now, then in zip(spent, before, strict=True))
        clock.advance(passes)
        one.news()
        if period_around(period, clock.wall())[0] != start:
            start, sums = period_around(period, clock.wall())[0], {"a": 0, "b": 0}
        for name, total in sums.items():
            found = one.spent(name, period)
            assert found is not None
            assert found.joules == pytest.approx(total / 1e6)


# --- over the life of a control plane ---------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_next_control_plane_goes_on_where_the_last_has_ended() -> None:
    asked: list[tuple[float, bool]] = []

    def spent_since(start: Seconds) -> Mapping[str, Spending]:
        asked.append((start, threading.current_thread() is threading.main_thread()))
        return {"acme": Spending(90.0, 5.0, 7), "somebody": Spending(1e9, 0, 0)}

    one = budgets(clock_at("2026-03-31T12:30"), {"joules": 100}, {"period": "month", "joules": 1000})
    await one.recall(spent_since)
    assert asked == [(moment("2026-03-31"), False), (moment("2026-03-01"), False)]
    news = told(one)
    assert news is not None
    assert {tenant: state.reason for tenant, state in news.items()} == {"acme": "80 % of 100 J a day"}
    one.take_energy(joules(10), UNKNOWN)
    assert one.spent("acme", "day") == Spending(100.0, 5.0, 7)
    news = told(one)
    assert news is not None
    assert news["acme"].spent


@pytest.mark.anyio
async def test_ledger_that_cannot_be_read_is_said_and_budgets_begin_with_nothing_spent() -> None:
    def spent_since(start: Seconds) -> Mapping[str, Spending]:
        raise WattgateError("the ledger is locked")

    said: list[str] = []
    one = budgets(clock_at("2026-03-31T12:30"), {"joules": 100})
    await one.recall(spent_since, said.append)
    assert said == ["budgets of the day begin with nothing spent: the ledger is locked"]
    assert told(one) == {}


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"joules": 0},
        {"joules": -1},
        {"co2e_grams": 0},
        {"tokens": 0},
        {"tokens": 1.5},
        {"joules": float("nan")},
        {"joules": float("inf")},
        {"joules": 1, "soft": 0},
        {"joules": 1, "soft": 1.1},
        {"joules": 1, "period": "week"},
        {"joules": 1, "tenant": ""},
    ],
)
def test_budget_without_a_bound_or_with_one_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BudgetSettings.model_validate({"tenant": "acme", **wrong})
