"""A coroutine that its own events run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

import pytest

from server.gateway.drive import Drive, Signal

pytestmark = pytest.mark.anyio


class Walk:
    """Awaits one thing after the other and writes down what happens."""

    def __init__(self, *things: Awaitable[Any]) -> None:
        self.seen: list[Any] = []
        self._things = things
        self.drive = Drive(self._run())

    async def _run(self) -> None:
        try:
            for thing in self._things:
                self.seen.append(await thing)
            self.seen.append("end")
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise
        finally:
            self.seen.append("finally")


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "wattgate.gateway")
    return caplog


async def test_what_waits_for_nothing_runs_to_its_end_at_once() -> None:
    walk = Walk()
    walk.drive.start()
    assert walk.seen == ["end", "finally"]


async def test_signal_that_was_set_before_is_not_waited_for() -> None:
    signal = Signal()
    signal.set()
    walk = Walk(signal)
    walk.drive.start()
    assert walk.seen == [None, "end", "finally"]


async def test_signal_runs_who_waits_before_it_returns() -> None:
    signal = Signal()
    walk = Walk(signal, signal)
    walk.drive.start()
    assert walk.seen == []
    signal.set()
    assert walk.seen == [None]
    signal.set()
    assert walk.seen == [None, None, "end", "finally"]


async def test_signal_is_used_up_by_who_takes_it() -> None:
    signal = Signal()
    signal.set()
    signal.set()
    walk = Walk(signal, signal)
    walk.drive.start()
    assert walk.seen == [None]


async def test_cleared_signal_is_waited_for() -> None:
    signal = Signal()
    signal.set()
    signal.clear()
    walk = Walk(signal)
    walk.drive.start()
    assert walk.seen == []


async def test_signal_that_is_set_by_its_own_waiter_is_kept() -> None:
    signal, seen = Signal(), []

    async def run() -> None:
        await signal
        signal.set()
        await signal
        seen.append("end")

    Drive(run()).start()
    signal.set()
    assert seen == ["end"]


async def test_future_runs_on_with_its_result_or_its_error() -> None:
    loop = asyncio.get_running_loop()
    good: asyncio.Future[int] = loop.create_future()
    bad: asyncio.Future[int] = loop.create_future()
    seen: list[Any] = []

    async def run() -> None:
        seen.append(await good)
        try:
            await bad
        except OSError as exc:
            seen.append(exc)

    Drive(run()).start()
    good.set_result(3)
    await asyncio.sleep(0)
    assert seen == [3]
    bad.set_exception(error := OSError("broken"))
    await asyncio.sleep(0)
    assert seen == [3, error]


async def test_task_may_be_awaited() -> None:
    release = asyncio.Event()

    async def work() -> str:
        await release.wait()
        return "done"

    walk = Walk(task := asyncio.get_running_loop().create_task(work()))
    walk.drive.start()
    release.set()
    await task
    await asyncio.sleep(0)
    assert walk.seen == ["done", "end", "finally"]


async def test_what_is_awaited_finds_no_current_task() -> None:
    seen: list[Any] = []

    async def run() -> None:
        await future
        seen.append(asyncio.current_task())

    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    Drive(run()).start()
    future.set_result(None)
    await asyncio.sleep(0)
    assert seen == [None]


# --- cancel -----------------------------------------------------------------------------------------------------------


async def test_cancel_is_raised_at_a_signal_and_the_signal_forgets_who_waited() -> None:
    signal = Signal()
    walk = Walk(signal)
    walk.drive.start()
    walk.drive.cancel()
    assert walk.seen == ["cancelled", "finally"]
    signal.set()
    other = Walk(signal)
    other.drive.start()
    assert other.seen == [None, "end", "finally"]


async def test_cancel_is_raised_at_a_future_which_is_cancelled_too() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    walk = Walk(future)
    walk.drive.start()
    walk.drive.cancel()
    assert walk.seen == ["cancelled", "finally"]
    assert future.cancelled()
    await asyncio.sleep(0)
    assert walk.seen == ["cancelled", "finally"]


async def test_cancel_is_raised_at_a_task_which_is_cancelled_too() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    walk = Walk(task := asyncio.get_running_loop().create_task(work()))
    walk.drive.start()
    await started.wait()
    walk.drive.cancel()
    assert walk.seen == ["cancelled", "finally"]
    await ended.wait()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_future_that_others_cancel_cancels_who_waits() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    walk = Walk(future)
    walk.drive.start()
    future.cancel()
    await asyncio.sleep(0)
    assert walk.seen == ["cancelled", "finally"]


async def test_cancel_while_running_is_raised_at_the_next_wait() -> None:
    seen: list[str] = []

    async def run() -> None:
        drive.cancel()
        seen.append("still runs")
        try:
            await Signal()
        except asyncio.CancelledError:
            seen.append("cancelled")

    drive = Drive(run())
    drive.start()
    assert seen == ["still runs", "cancelled"]


async def test_cancel_while_running_at_a_future_leaves_nothing_that_waits() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    seen: list[str] = []

    async def run() -> None:
        drive.cancel()
        try:
            await future
        except asyncio.CancelledError:
            seen.append("cancelled")

    drive = Drive(run())
    drive.start()
    assert seen == ["cancelled"]
    future.cancel()
    await asyncio.sleep(0)
    assert seen == ["cancelled"]


async def test_cancel_that_is_withstood_lets_the_coroutine_wait_again() -> None:
    first, second = Signal(), Signal()
    seen: list[str] = []

    async def run() -> None:
        try:
            await first
        except asyncio.CancelledError:
            await second
            seen.append("end")

    drive = Drive(run())
    drive.start()
    drive.cancel()
    assert seen == []
    first.set()
    assert seen == []
    second.set()
    assert seen == ["end"]


async def test_cancel_after_the_end_or_before_the_start_does_nothing(quiet: pytest.LogCaptureFixture) -> None:
    walk = Walk()
    walk.drive.cancel()
    assert walk.seen == []
    walk.drive.start()
    walk.drive.cancel()
    walk.drive.cancel()
    assert walk.seen == ["end", "finally"]
    assert quiet.records == []


async def test_future_that_is_done_in_the_turn_of_the_cancel_does_not_run_on_twice() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    walk = Walk(future)
    walk.drive.start()
    future.set_result(1)
    walk.drive.cancel()
    await asyncio.sleep(0)
    assert walk.seen == ["cancelled", "finally"]


async def test_future_that_is_done_after_a_withstood_cancel_does_not_wake_the_next_wait() -> None:
    first: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    second: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    seen: list[Any] = []

    async def run() -> None:
        try:
            await first
        except asyncio.CancelledError:
            seen.append(await second)

    drive = Drive(run())
    drive.start()
    first.set_result(1)  # its callback is under way already
    drive.cancel()
    await asyncio.sleep(0)
    assert seen == []
    second.set_result(2)
    await asyncio.sleep(0)
    assert seen == [2]


# --- ends that nobody expected ----------------------------------------------------------------------------------------


async def test_error_that_nobody_took_is_logged_and_ends_the_run(quiet: pytest.LogCaptureFixture) -> None:
    signal = Signal()

    async def run() -> None:
        await signal
        raise KeyError("a defect")

    drive = Drive(run())
    drive.start()
    signal.set()
    (record,) = quiet.records
    assert record.levelno == logging.CRITICAL
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError
    signal.set()
    drive.cancel()
    assert len(quiet.records) == 1
