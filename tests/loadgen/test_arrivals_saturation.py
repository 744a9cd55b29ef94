"""The search for the highest level that a server carries."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen._saturation import verdict_of
from loadgen._search import Search


def searched(search: Search, capacity: float) -> list[float]:
    """The levels that were tried against a server that carries `capacity`."""
    tried: list[float] = []
    while (level := search.next()) is not None:
        tried.append(level)
        search.tell(level, passed=level <= capacity)
    return tried


@given(first=st.floats(0.5, 500), share=st.floats(0.05, 50))
def test_capacity_is_bracketed_to_a_tenth(first: float, share: float) -> None:
    search = Search(first, whole=False)
    tried = searched(search, first * share)
    assert search.best is not None
    assert search.failed is not None
    assert search.best <= first * share < search.failed <= search.best * 1.11
    assert len(set(tried)) == len(tried) <= 16


@given(first=st.integers(1, 200), capacity=st.integers(1, 2000))
def test_whole_levels_are_found_exactly_where_they_are_few(first: int, capacity: int) -> None:
    search = Search(float(first), whole=True)
    tried = searched(search, float(capacity))
    assert all(level == int(level) for level in tried)
    if search.best is not None and search.failed is not None:
        assert search.best <= capacity < search.failed
        assert search.failed <= max(search.best * 1.1, search.best + 1)


def test_server_that_carries_nothing_ends_the_search_soon() -> None:
    assert searched(Search(64.0, whole=False), 0.0) == [64.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0]
    assert searched(Search(2.0, whole=True), 0.0) == [2.0, 1.0]


def test_server_that_carries_everything_ends_the_search_too() -> None:
    search = Search(1.0, whole=False)
    assert len(searched(search, float("inf"))) == 16
    assert search.failed is None


def summary(**changes: Any) -> dict[str, Any]:
    """Of a run in which everything went well: 500 requests within 50 s."""
    totals = {
        "ok": 500,
        "requests": 500,
        "errors": {},
        "first_message": None,
        "requests_per_s": 10.0,
        "goodput": {"attainment": 0.97},
    }
    found: dict[str, Any] = {
        "totals": totals,
        "offered_per_s": 10.0,
        "validity": {"rate": {"verdict": "valid", "because": None}},
        "window": {"length_s": 50.0},
    }
    return {**found, **{key: value for key, value in changes.items() if key in found}} | {
        "totals": {**totals, **{key: value for key, value in changes.items() if key in totals}}
    }


def test_level_holds_where_all_is_well() -> None:
    assert verdict_of(summary(), slo=True) is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ok": 0, "first_message": "the engine died"}, "no request was answered: the engine died"),
        ({"validity": {"rate": {"verdict": "invalid", "because": "7 of 10 were sent"}}}, "7 of 10 were sent"),
        ({"errors": {"http_429": 6}}, "6 of 500 requests failed"),
        ({"requests_per_s": 8.0}, "10 requests/s were due, 8 answered"),
        ({"goodput": {"attainment": 0.5}}, "50% of the requests met the SLO, below 90%"),
        ({"goodput": {"attainment": None}}, "0% of the requests met the SLO"),
    ],
)
def test_level_that_does_not_hold_says_why(changes: dict[str, Any], says: str) -> None:
    found = verdict_of(summary(**changes), slo=True)
    assert found is not None
    assert says in found


def test_closed_loop_offers_no_rate_that_could_fail() -> None:
    changes = {"offered_per_s": None, "validity": {"rate": {"verdict": "n/a", "because": "closed loop"}}}
    assert verdict_of(summary(**changes), slo=False) is None
