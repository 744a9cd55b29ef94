"""Over any interleaving of workers no more is let in than the limit allows, and nobody is ever stuck."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from server.gateway.limits import Charge
from server.wire import KeyGrant
from tests.fakes.limited_fleet import LimitedFleet, LimitedWorker, grant, outcome, turn

LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "requests_per_minute": st.sampled_from((1, 7, 60, 200)),
        "tokens_per_minute": st.sampled_from((1, 100, 3000)),
        "concurrency": st.integers(1, 6),
    },
)
STEPS = ("ask",) * 6 + ("up",) * 5 + ("down",) * 5 + ("end",) * 4 + ("leave", "wait", "settle", "settle")
"""What may happen next, as often as it stands here."""
TROUBLE = (*STEPS, "cut", "link", "link", "restart", "mute")


class Book:
    """What was let in, and what the law allows."""

    def __init__(self, key: KeyGrant) -> None:
        self.key = key
        self.running: list[Charge] = []
        self.asked: list[asyncio.Future[Charge]] = []
        self.requests = self.charged = self.overdraft = 0

    def collect(self) -> None:
        for one in [one for one in self.asked if one.done()]:
            self.asked.remove(one)
            if not one.cancelled() and one.exception() is None:
                self.running.append(one.result())
                self.requests += 1
                self.charged += one.result().tokens

    def end(self, used: int) -> None:
        if self.running:
            charge = self.running.pop(0)
            charge.settle(used, 0)
            if self.key.tokens_per_minute is not None:
                self.charged += min(0, used - charge.tokens)
                self.overdraft += max(0, used - charge.tokens)

    def check(self, elapsed: float) -> None:
        for limit, count in (
            (self.key.requests_per_minute, self.requests),
            (self.key.tokens_per_minute, self.charged),
        ):
            assert limit is None or count <= limit * elapsed / 60 + limit + 1e-6
        assert self.key.concurrency is None or len(self.running) <= self.key.concurrency


class Play:
    """A long, random sequence of events among the workers of one key."""

    def __init__(self, key: KeyGrant, workers: int, seed: int, steps: tuple[str, ...] = STEPS) -> None:
        self.key = key
        self.steps = steps
        self.restarts = 0
        self.chance = random.Random(seed)
        self.fleet = LimitedFleet(key, workers=workers)
        self.book = Book(key)
        self.start = self.fleet.clock.monotonic()

    async def step(self) -> None:
        """One event; what makes no sense now does not happen."""
        await getattr(self, self.chance.choice(self.steps))(self.chance.choice(self.fleet.workers))
        await self.look()

    async def ask(self, worker: LimitedWorker) -> None:
        self.book.asked.append(worker.ask(self.key, self.chance.choice((0, 40, 400, 4000))))

    async def up(self, worker: LimitedWorker) -> None:
        worker.carry_up()

    async def down(self, worker: LimitedWorker) -> None:
        worker.carry_down()

    async def end(self, worker: LimitedWorker) -> None:
        self.book.end(self.chance.choice((0, 0, 10, 100, 1000)))

    async def leave(self, worker: LimitedWorker) -> None:
        if self.book.asked:
            self.chance.choice(self.book.asked).cancel()

    async def settle(self, worker: LimitedWorker) -> None:
        await self.fleet.settle()

    async def wait(self, worker: LimitedWorker) -> None:
        await self.fleet.settle()  # no control plane is mute here: all that was said is heard in time
        self.fleet.timers.advance(self.chance.choice((0.001, 0.1, 0.3, 5.0)))

    async def mute(self, worker: LimitedWorker) -> None:
        self.fleet.timers.advance(self.chance.choice((0.1, 0.3, 2.0)))  # and nothing that was said arrives

    async def cut(self, worker: LimitedWorker) -> None:
        if worker.linked:
            worker.unlink()

    async def link(self, worker: LimitedWorker) -> None:
        if not worker.linked:
            worker.link()

    async def restart(self, worker: LimitedWorker) -> None:
        self.restarts += 1
        self.fleet.restart_control()

    async def look(self) -> None:
        await turn()
        self.book.collect()
        if self.steps is STEPS:
            self.book.check(self.fleet.clock.monotonic() - self.start)

    async def run(self, steps: int) -> None:
        for _ in range(steps):
            await self.step()
        for worker in self.fleet.workers:
            if not worker.linked:
                worker.link()
        await self.fleet.settle()
        self.fleet.timers.advance(1.0)
        await self.look()
        assert not self.book.asked, "nobody waits longer than the bound"
        while self.book.running:
            self.book.end(0)
        await self.fleet.settle()
        self.fleet.timers.advance(1e8)  # all debts are paid
        for worker in range(self.fleet.size):
            last = await outcome(self.fleet, worker, self.key)
            assert isinstance(last, Charge), "what is free can be had"
            last.settle(0, 0)
            await self.fleet.settle()
            self.fleet.timers.advance(61.0)


@settings(max_examples=60, deadline=None)
@given(limits=LIMITS, workers=st.integers(1, 3), seed=st.integers(0, 2**32))
def test_never_more_is_let_in_than_the_limit_allows(limits: dict[str, int], workers: int, seed: int) -> None:
    asyncio.run(Play(grant(**limits), workers, seed).run(300))


@settings(max_examples=60, deadline=None)
@given(limits=LIMITS, workers=st.integers(1, 3), seed=st.integers(0, 2**32))
def test_after_any_trouble_with_the_control_plane_nobody_is_stuck(
    limits: dict[str, int], workers: int, seed: int
) -> None:
    play = Play(grant(**limits), workers, seed, TROUBLE)
    asyncio.run(play.run(300))
    elapsed = play.fleet.clock.monotonic() - play.start
    counts = ((play.key.requests_per_minute, play.book.requests), (play.key.tokens_per_minute, play.book.charged))
    for limit, count in counts:
        # Twice the rate: a bucket fills while workers live on their share; a full bucket with each new control plane.
        assert limit is None or count <= 2 * limit * elapsed / 60 + limit * (2 + play.restarts)
