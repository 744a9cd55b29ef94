"""Tokens past the gateway are told from the jitter of counters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.energy.foreign import ForeignTokens


def test_growth_that_the_gateway_did_not_see_is_foreign() -> None:
    tokens = ForeignTokens()
    tokens.in_window(1000, 0)
    assert tokens.in_window(1300, 200_000) == 100_000
    assert tokens.in_window(1300, 0) == 0


def test_unknown_counter_or_its_first_value_says_nothing() -> None:
    tokens = ForeignTokens()
    assert tokens.in_window(None, 0) == 0
    assert tokens.in_window(5000, 0) == 0
    assert tokens.in_window(None, 0) == 0
    assert tokens.in_window(9000, 0) == 0


def test_engine_that_starts_again_counts_from_its_new_zero() -> None:
    tokens = ForeignTokens()
    tokens.in_window(5000, 0)
    assert tokens.in_window(100, 50_000) == 0
    assert tokens.in_window(200, 0) == 100_000


def test_few_tokens_are_jitter_until_they_add_up() -> None:
    tokens = ForeignTokens()
    totals = [0, 10, 20, 30]
    assert [tokens.in_window(total, 0) for total in totals] == [0, 0, 20_000, 0]


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 400)), max_size=40))
def test_counter_that_is_read_late_makes_no_foreign_tokens(windows: list[tuple[int, int]]) -> None:
    """The engine's counter, as known at a window's end, lacks the last `late` tokens."""
    tokens = ForeignTokens()
    tokens.in_window(0, 0)
    total = shown = 0
    for ours, late in windows:
        total += ours
        shown = max(shown, total - late)
        assert tokens.in_window(shown, ours * 1000) == 0


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=30))
def test_foreign_tokens_never_exceed_what_the_engine_made_beyond_ours(windows: list[tuple[int, int]]) -> None:
    tokens = ForeignTokens()
    total = tokens.in_window(0, 0)
    found = 0
    for ours, foreign in windows:
        total += ours + foreign
        found += tokens.in_window(total, ours * 1000)
    assert found <= 1000 * sum(foreign for _, foreign in windows)
