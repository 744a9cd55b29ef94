"""What a worker holds of one key's limits.

The control plane owns the truth: a bucket a limit that holds one minute's worth and fills at the limit's rate. A worker
spends what it was leased out of that bucket. Only while no control plane answers it spends a share of the rate on its
own account, the limit over the number of workers, and tells how much once it is heard again.
"""

from __future__ import annotations

from math import ceil
from typing import Final

from server.units import Seconds
from server.wire import LEASE_PATIENCE, Amounts, KeyGrant, Lease, LeaseWanted

__all__ = ["CONCURRENCY", "REQUESTS", "TOKENS", "Allowance", "Pool", "duration"]

REQUESTS: Final = "rate_limit_requests"
TOKENS: Final = "rate_limit_tokens"
CONCURRENCY: Final = "concurrency"

_MINUTE: Final = 60.0
_LEASES: Final = 40
"""A lease is at most this part of the limit, so that a worker that goes takes little with it …"""
_LEASES_A_WORKER: Final = 8
"""… and small enough that all workers together never hold most of it."""
_KEPT_LEASES: Final = 2
"""What a worker holds beyond so many leases it gives back unasked."""
_BYTES_PER_TOKEN: Final = 4
"""A rough figure for text in JSON; `settle` corrects it by the engine's usage."""
_SURE_FOR: Final = 1.0
"""For how long "there is no more" is believed without asking again; others may give something back."""
_MUTE_FOR: Final = 1.0
"""Between two attempts at a control plane that does not answer."""
_NO_SEAT_FOR: Final = 0.01
_COARSE: Final = 10_000
_HEADERS_FOR: Final = 0.01
"""Of a limit this large, what remains is told anew that often: to write it each time would cost more than to count."""
_SEAT_WAIT: Final = Seconds(1.0)


class Pool:
    """One limit a minute, requests or tokens: what this worker may spend, and what the control plane had left."""

    __slots__ = (
        "_names", "high", "lease", "left", "left_at", "level", "limit", "limit_header", "low", "rate", "share",
        "sure_until", "taken",
    )  # fmt: skip

    def __init__(self, limit: int, workers: int, kind: bytes) -> None:
        self.limit = limit
        self.rate = limit / _MINUTE
        self.share = 1.0 / workers
        """Of the rate, while no control plane answers."""
        self.lease = max(1, limit // max(_LEASES, _LEASES_A_WORKER * workers))
        self.low, self.high = (self.lease / 2 if self.lease > 1 else 0.0), float(_KEPT_LEASES * self.lease)
        """Below: ask for more, or tell of a debt; above: give back."""
        self.level = 0.0
        """May be spent; below 0: a debt."""
        self.left = float(limit)
        """What the control plane had at `left_at`."""
        self.left_at = self.sure_until = float("-inf")
        self.taken = 0.0
        """Added to `level` on this worker's own account."""
        self.limit_header = (b"x-ratelimit-limit-" + kind, b"%d" % limit)
        self._names = (b"x-ratelimit-remaining-" + kind, b"x-ratelimit-reset-" + kind)

    def elsewhere(self, now: float) -> float:
        """What the control plane should have now, if nobody else took any."""
        return min(self.limit, self.left + (now - self.left_at) * self.rate)

    def wait(self, need: float, now: float) -> Seconds:
        """Until there is enough for `need`; 0: there should be."""
        return Seconds(max(0.0, need - self.level - self.elsewhere(now)) / self.rate)

    def accrue(self, elapsed: float) -> None:
        """Let the worker's own share come in."""
        gain = min(elapsed * self.rate * self.share, max(0.0, self.own_bound - self.level))
        self.level += gain
        self.taken += gain

    @property
    def own_bound(self) -> float:
        return max(1.0, self.limit * self.share)

    def headers(self, now: float) -> list[tuple[bytes, bytes]]:
        """As OpenAI's: the limit, what remains, and when all of it will be back."""
        remaining = min(self.limit, max(0, int(self.level + self.elsewhere(now))))
        reset = duration((self.limit - remaining) / self.rate)
        return [self.limit_header, (self._names[0], b"%d" % remaining), (self._names[1], reset)]


class Allowance:
    """All limits of one key, in one worker. It knows no bus and no event loop."""

    def __init__(self, grant: KeyGrant, workers: int) -> None:
        self.grant = grant
        self.requests = None if grant.requests_per_minute is None else Pool(grant.requests_per_minute, workers, _R)
        self.tokens = None if grant.tokens_per_minute is None else Pool(grant.tokens_per_minute, workers, _T)
        self.concurrency = grant.concurrency
        self.seats = 0
        """Leased."""
        self.in_use = 0
        self.answered = False
        """The control plane has spoken since it was asked last."""
        self._vital = False
        self._asked_until = float("-inf")
        self._workers = workers
        self._alone_since: float | None = None
        self._no_seat_until = float("-inf")
        self._recalled_until = 0.0
        """0: nobody else is short."""
        self._headers: list[tuple[bytes, bytes]] = []
        self._headers_until = float("-inf")
        self._headers_for = _HEADERS_FOR if _is_coarse(self.requests) and _is_coarse(self.tokens) else 0.0

    # --- spending -----------------------------------------------------------------------------------------------------

    def estimate(self, size: int) -> int:
        """Tokens to charge for a body of `size` bytes; never more than the limit, or it could never pass."""
        if self.tokens is None:
            return 0
        tokens = size // _BYTES_PER_TOKEN or 1
        return min(self.tokens.limit, tokens)

    def fits(self, tokens: float) -> bool:
        requests, pool = self.requests, self.tokens
        return (
            (requests is None or requests.level >= 1)
            and (pool is None or pool.level >= tokens)
            and (self.concurrency is None or self.in_use < self.seats)
        )

    def take(self, tokens: float) -> None:
        """Spend; `fits` was true."""
        if self.requests is not None:
            self.requests.level -= 1
        if self.tokens is not None:
            self.tokens.level -= tokens
        self.in_use += 1

    def settle(self, charged: int, used: int | None) -> None:
        """The request has ended; None: nobody knows what it used, so the estimate stands."""
        self.in_use -= 1
        if self.tokens is not None and used is not None:
            self.tokens.level -= used - charged

    def lacks(self, tokens: float, now: float) -> tuple[str, Seconds]:
        """Which limit stands longest in the way of a request that does not fit, and for how long."""
        found = [
            (self._wait(pool, need, now), reason)
            for reason, pool, need in ((REQUESTS, self.requests, 1), (TOKENS, self.tokens, tokens))
            if pool is not None and pool.level < need
        ]
        if self.concurrency is not None and self.in_use >= self.seats:
            found.append((_SEAT_WAIT, CONCURRENCY))
        wait, reason = max(found)
        return reason, wait

    def _wait(self, pool: Pool, need: float, now: float) -> Seconds:
        if self.alone:
            return Seconds((need - pool.level) / (pool.rate * pool.share))
        return pool.wait(need, now)

    def surely_lacks(self, tokens: float, now: float) -> bool:
        """True where the control plane said so just now: asking again would be in vain."""
        for pool, need in ((self.requests, 1), (self.tokens, tokens)):
            if pool is not None and now < pool.sure_until and pool.wait(need, now) > 0:
                return True
        return self.concurrency is not None and self.in_use >= self.seats and now < self._no_seat_until

    def headers(self, now: float) -> list[tuple[bytes, bytes]]:
        """`x-ratelimit-*`; the list is shared, do not change it."""
        if now >= self._headers_until:
            requests = [] if self.requests is None else self.requests.headers(now)
            self._headers = requests if self.tokens is None else requests + self.tokens.headers(now)
            self._headers_until = now + self._headers_for
        return self._headers

    def at_rest(self) -> bool:
        """There is nothing to ask for and nothing to give back; the usual case, and quick to tell."""
        requests, tokens = self.requests, self.tokens
        return (
            not self._recalled_until
            and (requests is None or requests.level >= requests.low)
            and (tokens is None or tokens.low <= tokens.level <= tokens.high)
        )

    # --- leases -------------------------------------------------------------------------------------------------------

    def is_asked(self, now: float) -> bool:
        """A lease was asked for, and may still come."""
        return now < self._asked_until

    def ask(self, wish: LeaseWanted, now: float) -> None:
        """This lease is being asked for; where the control plane is mute, more seldom."""
        self.answered = False
        self._vital = wish.least != _NOTHING
        self._asked_until = now + (_MUTE_FOR if self.alone else LEASE_PATIENCE)

    def wish(self, tokens: float, now: float) -> LeaseWanted:
        """What to ask for so that a request of `tokens` fits, and a lease more, unless others are short."""
        calm = now >= self._recalled_until
        least = Amounts(
            requests=_short(self.requests, 1),
            tokens=_short(self.tokens, tokens),
            seats=0 if self.concurrency is None else max(0, self.in_use + 1 - self.seats),
        )
        most = Amounts(
            requests=least.requests + _lease(self.requests, calm=calm),
            tokens=least.tokens + _lease(self.tokens, calm=calm),
            seats=least.seats and max(least.seats, (self.concurrency or 0) // (_LEASES_A_WORKER * self._workers)),
        )
        return LeaseWanted(key=self.grant.id, least=least, most=most)

    def early_wish(self, now: float) -> LeaseWanted | None:
        """What to ask for before it is needed; None: enough is here, or too little is left."""
        if self.alone or now < self._recalled_until or self.is_asked(now):
            return None
        requests, tokens = _refill(self.requests, now), _refill(self.tokens, now)
        if not requests and not tokens:
            return None
        return LeaseWanted(key=self.grant.id, most=Amounts(requests, tokens, 0))

    def heard(self, lease: Lease, now: float) -> None:
        """Hold what was granted, and know what is left."""
        self._headers_until = float("-inf")
        self.answered = True
        self._asked_until = now + LEASE_PATIENCE if lease.more else float("-inf")
        in_vain = self._vital and lease.granted == _NOTHING and not lease.more
        sure_until = now + _SURE_FOR if in_vain else float("-inf")
        for pool, granted, left in (
            (self.requests, lease.granted.requests, lease.left.requests),
            (self.tokens, lease.granted.tokens, lease.left.tokens),
        ):
            if pool is not None:
                pool.level += granted
                pool.left, pool.left_at, pool.sure_until = float(left), now, sure_until
        self.seats += lease.granted.seats
        if in_vain and lease.left.seats <= 0:
            self._no_seat_until = now + _NO_SEAT_FOR

    def recall(self, now: float) -> LeaseWanted:
        """Give back all that is not in use, and soon what comes free."""
        self._recalled_until = now + LEASE_PATIENCE
        return LeaseWanted(key=self.grant.id, back=self._idle(0), recalled=True)

    def give_back(self, now: float) -> LeaseWanted | None:
        """What the control plane should have: debts, what is more than two leases, and all while others are short."""
        if self._alone_since is not None:
            return None
        if now >= self._recalled_until:
            self._recalled_until = 0.0
        back = self._idle(0 if self._recalled_until else _KEPT_LEASES)
        return LeaseWanted(key=self.grant.id, back=back) if back != _NOTHING else None

    def _idle(self, leases: int) -> Amounts:
        """Take out what is beyond so many leases; seats only where none may stay."""
        self._headers_until = float("-inf")
        seats = 0 if leases or self.concurrency is None else max(0, self.seats - self.in_use)
        self.seats -= seats
        return Amounts(_surplus(self.requests, leases), _surplus(self.tokens, leases), seats)

    # --- without a control plane --------------------------------------------------------------------------------------

    @property
    def alone(self) -> bool:
        return self._alone_since is not None

    def leave_alone(self, now: float) -> None:
        """No control plane answers: spend the worker's own share from now on."""
        if self._alone_since is None:
            self._alone_since = now
            self._asked_until = now + _MUTE_FOR

    def take_alone(self, tokens: int, now: float) -> int | None:
        """Spend of the own share; what was charged, None if it does not fit."""
        assert self._alone_since is not None
        for pool in (self.requests, self.tokens):
            if pool is not None:
                pool.accrue(now - self._alone_since)
        self._alone_since = now
        if self.tokens is not None:
            tokens = min(tokens, int(self.tokens.own_bound))
        leased = self.seats
        if self.concurrency is not None:
            self.seats = max(leased, ceil(self.concurrency / self._workers))
        fits = self.fits(tokens)
        self.seats = leased
        if not fits:
            return None
        self.take(tokens)
        return tokens

    def rejoin(self, *, afresh: bool) -> LeaseWanted | None:
        """The control plane answers again: what was spent without it. `afresh`: it knows of no seat of this worker."""
        self._alone_since = None
        self._asked_until = float("-inf")
        if afresh:
            self.seats = 0
        unknown = 0 if self.concurrency is None else max(0, self.in_use - self.seats)
        self.seats += unknown
        back = Amounts(_own(self.requests), _own(self.tokens), -unknown)
        return LeaseWanted(key=self.grant.id, back=back) if back != _NOTHING else None


_NOTHING: Final = Amounts()
_R: Final = b"requests"
_T: Final = b"tokens"


def duration(seconds: float) -> bytes:
    """As OpenAI writes it, rounded up: `20ms`, `1s`, `6m0s`."""
    if seconds < 1:
        return b"%dms" % ceil(seconds * 1000)
    whole = ceil(seconds)
    return b"%ds" % whole if whole < 60 else b"%dm%ds" % divmod(whole, 60)


def _is_coarse(pool: Pool | None) -> bool:
    return pool is None or pool.limit >= _COARSE


def _short(pool: Pool | None, need: float) -> int:
    return 0 if pool is None else max(0, ceil(need - pool.level))


def _lease(pool: Pool | None, *, calm: bool) -> int:
    return pool.lease if pool is not None and calm and pool.lease > 1 else 0


def _refill(pool: Pool | None, now: float) -> int:
    if pool is None or pool.lease < 2 or pool.level > pool.low or pool.elsewhere(now) < pool.lease:
        return 0
    return int(pool.lease - pool.level)


def _surplus(pool: Pool | None, leases: int) -> int:
    """Take out what is beyond so many leases; negative: the debt."""
    if pool is None:
        return 0
    back = -ceil(-pool.level) if pool.level < 0 else max(0, int(pool.level - leases * pool.lease))
    pool.level -= back
    return back


def _own(pool: Pool | None) -> int:
    """What is not needed, less what was taken alone (at most a share of a minute: the bucket would not hold more)."""
    if pool is None:
        return 0
    taken, pool.taken = min(int(pool.taken), int(pool.own_bound)), 0.0
    return _surplus(pool, _KEPT_LEASES) - taken
