"""Slots and the queue before them."""

from __future__ import annotations

import asyncio

import pytest

from server.clock import SystemClock
from server.errors import ContendedError
from server.gateway.admission import Admission
from server.units import Seconds
from tests.gateway.house import until

pytestmark = pytest.mark.anyio


def admission(*, max_in_flight: int = 1, max_queue: int = 2, timeout: float = 20) -> Admission:
    return Admission(
        max_in_flight=max_in_flight, max_queue=max_queue, queue_timeout=Seconds(timeout), clock=SystemClock()
    )


async def test_free_slot_costs_no_wait() -> None:
    one = admission()
    async with one.slot("t") as slot:
        assert slot.waited == 0.0


async def test_who_waits_gets_the_slot_in_the_order_of_coming() -> None:
    one, order = admission(), []

    async def visit(name: str) -> None:
        async with one.slot("t") as slot:
            order.append(name)
            assert slot.waited > 0

    async with asyncio.TaskGroup() as tasks, one.slot("t"):
        tasks.create_task(visit("first"))
        await until(lambda: one.queued == 1)
        tasks.create_task(visit("second"))
        await until(lambda: one.queued == 2)
    assert order == ["first", "second"]


async def test_full_queue_refuses_with_a_time_to_come_back() -> None:
    one = admission(max_queue=0)
    async with one.slot("t"):
        with pytest.raises(ContendedError, match="Try again later") as caught:
            await one.enter()
    assert caught.value.retry_after == 1.0
    assert one.rejections == {"queue_full": 1, "queue_timeout": 0}


async def test_wait_that_is_too_long_ends_in_a_refusal_and_frees_the_place() -> None:
    one = admission(timeout=0.01)
    async with one.slot("t"):
        with pytest.raises(ContendedError, match=r"within 0\.01 s"):
            await one.enter()
        assert one.queued == 0
    assert one.rejections == {"queue_full": 0, "queue_timeout": 1}
    async with one.slot("t") as slot:
        assert slot.waited == 0.0


async def test_cancelled_wait_leaves_the_queue() -> None:
    one = admission()
    async with one.slot("t"):
        waiting = asyncio.ensure_future(one.enter())
        await until(lambda: one.queued == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert one.queued == 0
    async with one.slot("t") as slot:
        assert slot.waited == 0.0


async def test_slot_given_to_someone_cancelled_in_the_same_turn_is_not_lost() -> None:
    one = admission()
    await one.enter()
    waiting = asyncio.ensure_future(one.enter())
    await until(lambda: one.queued == 1)
    one.leave()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with one.slot("t") as slot:
        assert slot.waited == 0.0
