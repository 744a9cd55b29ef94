"""Waits before restarts, memory for starts, and the board of replicas."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from server.config import RestartSettings
from server.control.backoff import HEALTHY_AFTER_S, Backoff
from server.control.memory import MemoryBudget, NoMemoryNowError
from server.control.race import first_of, to_the_end
from server.units import Bytes, Seconds


@given(st.integers(1, 50), st.floats(0.01, 100), st.floats(0.01, 100))
def test_waits_double_up_to_the_bound_and_end(give_up_after, first, most):
    backoff = Backoff(RestartSettings(backoff_s=first, max_backoff_s=most, give_up_after=give_up_after))
    waits = [backoff.failed(served=None) for _ in range(give_up_after)]
    assert waits[-1] is None
    assert None not in waits[:-1]
    assert waits[:-1] == [min(most, first * 2**number) for number in range(give_up_after - 1)]


def test_engine_that_served_a_minute_fails_for_the_first_time_again():
    backoff = Backoff(RestartSettings(backoff_s=1, give_up_after=2))
    for _ in range(10):
        assert backoff.failed(served=HEALTHY_AFTER_S) == 1


def test_engine_that_fell_over_at_once_counts_on():
    backoff = Backoff(RestartSettings(backoff_s=1, give_up_after=2))
    assert backoff.failed(served=Seconds(3)) == 1
    assert backoff.failed(served=Seconds(3)) is None


def test_one_gives_up_at_the_first_failure_and_nought_is_no_setting():
    assert Backoff(RestartSettings(give_up_after=1)).failed(served=None) is None
    with pytest.raises(ValidationError, match="give_up_after"):
        RestartSettings(give_up_after=0)


def test_starts_at_the_same_time_are_not_promised_the_same_memory():
    budget = MemoryBudget(lambda: Bytes(100))
    with budget.promise(Bytes(60)):
        with pytest.raises(NoMemoryNowError, match="Not enough memory"), budget.promise(Bytes(60)):
            pass
        with budget.promise(Bytes(40)), budget.promise(None):
            pass
    with budget.promise(Bytes(100)):
        pass


def test_unknown_memory_refuses_nobody():
    with MemoryBudget(lambda: None).promise(Bytes(1 << 60)):
        pass


@pytest.mark.anyio
async def test_first_of_cancels_and_awaits_the_others():
    log = []

    async def loser():
        try:
            await asyncio.Event().wait()
        finally:
            log.append("cancelled")

    async def winner():
        return "won"

    assert await first_of(loser(), winner()) == (1, "won")
    assert log == ["cancelled"]


@pytest.mark.anyio
async def test_work_to_the_end_is_not_cut_and_the_cancellation_is_handed_over():
    begun, go = asyncio.Event(), asyncio.Event()

    async def work():
        begun.set()
        await go.wait()
        return "done"

    task = asyncio.create_task(to_the_end(work()))
    await begun.wait()
    task.cancel()
    go.set()
    result, cancelled = await task
    assert result == "done"
    assert isinstance(cancelled, asyncio.CancelledError)
