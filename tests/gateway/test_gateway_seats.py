"""Seats and the line before them, waited for by tasks and by what has no task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from server.gateway.drive import Drive
from server.gateway.seats import Seats
from server.units import Seconds
from tests.gateway.driven import driven
from tests.gateway.house import until

pytestmark = pytest.mark.anyio

LONG = Seconds(20.0)
Run = Callable[[Coroutine[Any, Any, None]], Awaitable[None]]


async def as_task(coroutine: Coroutine[Any, Any, None]) -> None:
    await asyncio.ensure_future(coroutine)


RUNS = pytest.mark.parametrize("run", [as_task, driven], ids=["task", "driven"])


@RUNS
async def test_seats_go_to_those_who_wait_in_the_order_of_coming(run: Run) -> None:
    seats, order = Seats(1), []
    assert seats.take_now()

    async def sit(name: str) -> None:
        await seats.take(LONG)
        order.append(name)
        seats.leave()

    waiting = []
    for number, name in enumerate(("first", "second")):
        waiting.append(asyncio.ensure_future(run(sit(name))))
        await until(lambda: seats.waiting == number + 1)  # noqa: B023
    seats.leave()
    assert not seats.take_now()
    await asyncio.gather(*waiting)
    assert order == ["first", "second"]
    assert seats.take_now()


@RUNS
async def test_wait_without_a_seat_ends_in_time(run: Run) -> None:
    seats = Seats(1)
    assert seats.take_now()
    with pytest.raises(TimeoutError):
        await run(seats.take(Seconds(0.01)))
    assert seats.waiting == 0
    seats.leave()
    assert seats.take_now()


@pytest.mark.parametrize("in_the_same_turn", [False, True])
async def test_cancelled_wait_of_a_task_loses_no_seat(in_the_same_turn: bool) -> None:
    seats = Seats(1)
    assert seats.take_now()
    waiting = asyncio.ensure_future(seats.take(LONG))
    await until(lambda: seats.waiting == 1)
    if in_the_same_turn:
        seats.leave()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    if not in_the_same_turn:
        seats.leave()
    assert (seats.waiting, seats.take_now(), seats.take_now()) == (0, True, False)


@pytest.mark.parametrize("in_the_same_turn", [False, True])
async def test_cancelled_wait_without_a_task_loses_no_seat(in_the_same_turn: bool) -> None:
    seats, ends = Seats(1), []
    assert seats.take_now()

    async def sit() -> None:
        try:
            await seats.take(LONG)
        except asyncio.CancelledError:
            ends.append("cancelled")

    drive = Drive(sit())
    drive.start()
    if in_the_same_turn:
        seats.leave()
    drive.cancel()
    if not in_the_same_turn:
        seats.leave()
    assert ends == ["cancelled"]
    assert (seats.waiting, seats.take_now(), seats.take_now()) == (0, True, False)


async def test_seat_does_not_go_to_someone_who_was_cancelled_in_the_same_turn() -> None:
    seats = Seats(1)
    assert seats.take_now()
    left, stays = (asyncio.ensure_future(seats.take(LONG)) for _ in range(2))
    await until(lambda: seats.waiting == 2)
    left.cancel()
    seats.leave()
    await stays
    assert left.cancelled()
    assert not seats.take_now()
