"""The truth of every key's limits, of which workers lease parts.

A limit a minute is a bucket that holds one minute's worth, is full at first and fills at the limit's rate. What a
worker was leased counts as spent until it gives it back; so over any time all workers together let no more in than the
bucket held and gained. Requests at a time are leased as seats, which come back when a worker goes.

Nothing of this is stored: a new control plane starts with full buckets, which forgives at most a minute's worth, and
hears from each worker which seats are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from server.clock import Clock
from server.units import Seconds
from server.wire import LEASE_PATIENCE, Amounts, Hello, KeyGrant, Lease, LeaseWanted, Recall

__all__ = ["Bucket", "Leases"]

_MINUTE: Final = 60.0
_NOTHING: Final = Amounts()
_NO_BOUND: Final = 2**62


class Bucket:
    """Holds `limit` and gains as much a minute. Below 0: a debt."""

    __slots__ = ("_at", "_level", "_limit")

    def __init__(self, limit: int, now: Seconds) -> None:
        self._limit = limit
        self._level = float(limit)
        self._at = now

    def level(self, now: Seconds) -> float:
        self._level = min(self._limit, self._level + (now - self._at) * self._limit / _MINUTE)
        self._at = now
        return self._level

    def take(self, amount: int) -> None:
        """Take out; negative: put back, as far as there is room."""
        self._level = min(self._limit, self._level - amount)


@dataclass(slots=True, kw_only=True)
class _Account:
    """One key."""

    grant: KeyGrant
    requests: Bucket | None
    tokens: Bucket | None
    seats: dict[str, int] = field(default_factory=dict)
    """Leased, by worker."""
    holders: dict[str, Seconds] = field(default_factory=dict)
    """Workers that may hold something, and when each was last asked to give back."""
    recalled: set[str] = field(default_factory=set)
    """Workers that were asked and have not answered."""
    pending: dict[str, tuple[LeaseWanted, Seconds]] = field(default_factory=dict)
    """What workers wait for, and until when."""

    def left(self, now: Seconds) -> Amounts:
        seats = self.grant.concurrency
        return Amounts(
            requests=0 if self.requests is None else int(self.requests.level(now) // 1),
            tokens=0 if self.tokens is None else int(self.tokens.level(now) // 1),
            seats=0 if seats is None else seats - sum(self.seats.values()),
        )

    def available(self, now: Seconds) -> Amounts:
        left = self.left(now)
        return Amounts(
            requests=_NO_BOUND if self.requests is None else max(0, left.requests),
            tokens=_NO_BOUND if self.tokens is None else max(0, left.tokens),
            seats=_NO_BOUND if self.grant.concurrency is None else max(0, left.seats),
        )

    def move(self, worker: str, amounts: Amounts, *, sign: int) -> None:
        """Lease to a worker (1), or take back from it (-1)."""
        if self.requests is not None:
            self.requests.take(sign * amounts.requests)
        if self.tokens is not None:
            self.tokens.take(sign * amounts.tokens)
        if self.grant.concurrency is not None and amounts.seats:
            self.seats[worker] = max(0, self.seats.get(worker, 0) + sign * amounts.seats)

    def awaits(self, now: Seconds, *, but: str = "") -> bool:
        """Whether a worker, other than `but`, may still give something back that it was asked for."""
        return any(boot != but and now - self.holders[boot] < LEASE_PATIENCE for boot in self.recalled)


class Leases:
    """Leases every key's limits to the workers. `tell` sends to one of them."""

    def __init__(self, clock: Clock, tell: Callable[[Hello, Lease | Recall], None]) -> None:
        self._clock = clock
        self._tell = tell
        self._accounts: dict[str, _Account] = {}
        self._workers: dict[str, Hello] = {}

    def replace(self, grants: Iterable[KeyGrant]) -> None:
        """From now on these keys hold; those whose limits did not change keep their state."""
        before, now = self._accounts, self._clock.monotonic()
        self._accounts = {}
        for grant in grants:
            known = before.get(grant.id)
            self._accounts[grant.id] = known if known and known.grant == grant else _open(grant, now)

    def joined(self, worker: Hello) -> None:
        """A worker's connection begins; one that comes again holds nothing until it says so."""
        if worker.boot in self._workers:
            self._forget(worker.boot)
        self._workers[worker.boot] = worker

    def left(self, worker: Hello) -> None:
        """A worker's connection has ended; what it had leased a minute is spent, its seats are free."""
        if self._workers.get(worker.boot) is worker:
            del self._workers[worker.boot]
            self._forget(worker.boot)

    def wanted(self, message: LeaseWanted, worker: Hello) -> None:
        """Take back what comes back, then lease what is asked for."""
        account, now = self._accounts.get(message.key), self._clock.monotonic()
        if account is None:  # revoked meanwhile
            if message.most != _NOTHING:
                self._tell(worker, Lease(key=message.key, granted=_NOTHING, left=_NOTHING))
            return
        account.left(now)  # fill up first: what comes back then finds the room that it really has
        account.holders.setdefault(worker.boot, Seconds(float("-inf")))
        account.move(worker.boot, message.back, sign=-1)
        if message.recalled:
            account.recalled.discard(worker.boot)
        if message.most != _NOTHING:
            account.pending.pop(worker.boot, None)
            if not self._grant(account, worker, message, now):
                self._recall(account, worker, message, now)
        if message.recalled or message.back != _NOTHING:
            self._serve(account, now)

    def _grant(self, account: _Account, worker: Hello, message: LeaseWanted, now: Seconds) -> bool:
        here, least, most = account.available(now), message.least, message.most
        if here.requests < least.requests or here.tokens < least.tokens or here.seats < least.seats:
            return False
        granted = Amounts(min(here.requests, most.requests), min(here.tokens, most.tokens), min(here.seats, most.seats))
        account.move(worker.boot, granted, sign=1)
        self._tell(worker, Lease(key=message.key, granted=granted, left=account.left(now)))
        return True

    def _recall(self, account: _Account, worker: Hello, message: LeaseWanted, now: Seconds) -> None:
        """Ask the others to give back; until they have, the request waits."""
        for boot, asked_at in account.holders.items():
            if boot != worker.boot and now - asked_at >= LEASE_PATIENCE:
                account.holders[boot] = now
                account.recalled.add(boot)
                self._tell(self._workers[boot], Recall(key=message.key))
        more = account.awaits(now, but=worker.boot)
        if more:
            account.pending[worker.boot] = (message, Seconds(now + LEASE_PATIENCE))
        self._tell(worker, Lease(key=message.key, granted=_NOTHING, left=account.left(now), more=more))

    def _serve(self, account: _Account, now: Seconds) -> None:
        """Something came back: lease it to those who wait, in their order."""
        for boot, (message, until) in list(account.pending.items()):
            if now > until or self._grant(account, self._workers[boot], message, now):
                del account.pending[boot]
            elif account.awaits(now, but=boot):
                return
            else:
                del account.pending[boot]
                lease = Lease(key=message.key, granted=_NOTHING, left=account.left(now))
                self._tell(self._workers[boot], lease)

    def _forget(self, boot: str) -> None:
        now = self._clock.monotonic()
        for account in self._accounts.values():
            account.pending.pop(boot, None)
            account.recalled.discard(boot)
            if account.holders.pop(boot, None) is not None:
                account.seats.pop(boot, None)
                self._serve(account, now)


def _open(grant: KeyGrant, now: Seconds) -> _Account:
    requests, tokens = grant.requests_per_minute, grant.tokens_per_minute
    return _Account(
        grant=grant,
        requests=None if requests is None else Bucket(requests, now),
        tokens=None if tokens is None else Bucket(tokens, now),
    )
