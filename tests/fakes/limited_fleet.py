"""Workers' limits and the control plane's leases, joined by queues that a test empties message by message."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from server.control.limits import Leases
from server.errors import RateLimitedError
from server.gateway.limits import Charge, Limits
from server.wire import PROTOCOL_VERSION, Hello, KeyGrant, Lease, LeaseWanted, Recall
from tests.fakes.clock import FakeClock

__all__ = ["LimitedFleet", "LimitedWorker", "grant", "outcome", "turn"]


class FakeTimers:
    """`call_later` on a fake clock; due timers run when the clock is advanced."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._timers: list[_Timer] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> _Timer:
        timer = _Timer(self._clock.monotonic() + delay, callback)
        self._timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        end = self._clock.monotonic() + seconds
        while due := [timer for timer in self._timers if timer.at <= end]:
            first = min(due, key=lambda timer: timer.at)
            self._timers.remove(first)
            if not first.cancelled:
                self._clock.advance(max(0.0, first.at - self._clock.monotonic()))
                first.callback()
        self._clock.advance(end - self._clock.monotonic())


class _Timer:
    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at, self.callback, self.cancelled = at, callback, False

    def cancel(self) -> None:
        self.cancelled = True


class LimitedWorker:
    """One worker: its limits, its connection, and the requests that wait for a lease."""

    def __init__(self, fleet: LimitedFleet, slot: int) -> None:
        self._fleet = fleet
        self._hello = self._new_hello(slot)
        self.up: deque[LeaseWanted] = deque()
        self.down: deque[Lease | Recall] = deque()
        self.linked = False
        self.told = 0
        self.limits = Limits(workers=fleet.size, clock=fleet.clock, tell=self._tell, call_later=fleet.timers.call_later)

    @staticmethod
    def _new_hello(slot: int) -> Hello:
        return Hello(version=PROTOCOL_VERSION, slot=slot, pid=slot + 1, boot=f"boot-{slot}")

    @property
    def hello(self) -> Hello:
        return self._hello

    def _tell(self, message: LeaseWanted) -> None:
        if self.linked:
            self.told += 1
            self.up.append(message)

    def link(self) -> None:
        self.linked = True
        self._hello = self._new_hello(self._hello.slot)
        self._fleet.leases.joined(self._hello)
        self.limits.linked()
        self.limits.replace(self._fleet.keys)

    def unlink(self) -> None:
        self.linked = False
        self.up.clear()
        self.down.clear()
        self._fleet.leases.left(self._hello)
        self.limits.unlinked()

    def carry_up(self) -> None:
        """Deliver one message to the control plane."""
        if self.up:
            self._fleet.leases.wanted(self.up.popleft(), self._hello)

    def carry_down(self) -> None:
        """Deliver one message to the worker."""
        if self.down:
            self.limits.heard(self.down.popleft())

    def ask(self, grant: KeyGrant, size: int) -> asyncio.Future[Charge]:
        """A request comes in."""
        now = self.limits.try_charge(grant, size)
        if now is None:
            return asyncio.ensure_future(self.limits.charge(grant, size))
        done = asyncio.get_running_loop().create_future()
        done.set_result(now)
        return done


class LimitedFleet:
    """One control plane and its workers, linked from the start."""

    def __init__(self, *grants: KeyGrant, workers: int = 1) -> None:
        self.size = workers
        self.clock = FakeClock()
        self.timers = FakeTimers(self.clock)
        self.keys = {f"digest of {grant.id}": grant for grant in grants}
        self.leases = self._new_leases()
        self.workers = [LimitedWorker(self, slot) for slot in range(workers)]
        for worker in self.workers:
            worker.link()

    def _new_leases(self) -> Leases:
        leases = Leases(self.clock, self._tell)
        leases.replace(self.keys.values())
        return leases

    def _tell(self, hello: Hello, message: Lease | Recall) -> None:
        for worker in self.workers:
            if worker.linked and worker.hello is hello:
                worker.down.append(message)

    def restart_control(self) -> None:
        """The control plane is killed, and another takes its place."""
        linked = [worker for worker in self.workers if worker.linked]
        for worker in linked:
            worker.unlink()
        self.leases = self._new_leases()
        for worker in linked:
            worker.link()

    async def settle(self) -> None:
        """Deliver everything, until nobody has anything to say."""
        await turn()
        while any(worker.up or worker.down for worker in self.workers):
            for worker in self.workers:
                worker.carry_up()
                worker.carry_down()
            await turn()


async def turn() -> None:
    """Let those who were answered go on."""
    for _ in range(3):
        await asyncio.sleep(0)


def grant(**limits: int) -> KeyGrant:
    return KeyGrant(id="key-1", tenant="t", **limits)


async def outcome(fleet: LimitedFleet, worker: int, key: KeyGrant, size: int = 4) -> Charge | RateLimitedError:
    """One request, with all messages delivered at once."""
    asked = fleet.workers[worker].ask(key, size)
    await fleet.settle()
    fleet.timers.advance(0.0)
    try:
        return await asyncio.wait_for(asked, 5)
    except RateLimitedError as exc:
        return exc
