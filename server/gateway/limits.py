"""Limits of keys: requests and tokens a minute, requests at a time.

A request is charged when it enters, by an estimate of its tokens, and settled when it ends, by the engine's usage.
Usually the worker holds a lease that is large enough, and nothing is waited for; else the request waits for the
control plane's answer, `LEASE_PATIENCE` at most. See `allowance.py` for what a worker may do without one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from server.clock import Clock
from server.errors import RateLimitedError, RequestError, UnauthenticatedError
from server.gateway.allowance import CONCURRENCY, REQUESTS, TOKENS, Allowance
from server.units import Seconds
from server.wire import LEASE_PATIENCE, KeyGrant, Lease, LeaseWanted, Recall

__all__ = ["FREE", "Charge", "Limits"]


class Timer(Protocol):
    """What `call_later` gives back."""

    def cancel(self) -> None: ...


CallLater = Callable[[float, Callable[[], None]], Timer]


class Charge:
    """What one request was charged, and the headers that tell its client."""

    __slots__ = ("_account", "_limits", "headers", "tokens")

    def __init__(
        self, limits: Limits | None, account: _Account | None, tokens: int, headers: list[tuple[bytes, bytes]]
    ) -> None:
        self._limits = limits
        self._account = account
        self.tokens = tokens
        """The estimate."""
        self.headers = headers
        """`x-ratelimit-*`, as OpenAI's; empty for a key without limits."""

    def settle(self, prompt_tokens: int | None, output_tokens: int | None) -> None:
        """The request has ended: call it exactly once. Both None: unknown, the estimate stands; 0, 0: nothing was used.

        What was used beyond the estimate is the key's debt.
        """
        if self._account is not None and self._limits is not None:
            known = prompt_tokens is not None or output_tokens is not None
            prompt = self.tokens if prompt_tokens is None else prompt_tokens
            self._limits.settle(self._account, self.tokens, prompt + (output_tokens or 0) if known else None)


FREE: Final = Charge(None, None, 0, [])
"""The one charge of all requests whose key has no limit."""


class _Waiter:
    __slots__ = ("charged", "timer", "tokens")

    def __init__(self, charged: asyncio.Future[Charge], tokens: int) -> None:
        self.charged = charged
        self.tokens = tokens
        self.timer: Timer | None = None


class _Account:
    """One key with limits, and the requests that wait for a lease of it, first come first served."""

    __slots__ = ("allowance", "waiting")

    def __init__(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self.waiting: deque[_Waiter] = deque()


class Limits:
    """Charges requests to their keys.

    `tell` sends to the control plane, at once and without waiting. The worker's end of the bus calls `linked`,
    `unlinked` and `heard`.
    """

    def __init__(
        self, *, workers: int, clock: Clock, tell: Callable[[LeaseWanted], None], call_later: CallLater | None = None
    ) -> None:
        """`workers`: of this gateway; without a control plane each spends its share. `call_later`: the loop's."""
        self._workers = workers
        self._clock = clock
        self._tell = tell
        self._call_later = call_later
        self._accounts: dict[str, _Account] = {}
        self._is_linked = False
        self.rejections: dict[str, int] = {REQUESTS: 0, TOKENS: 0, CONCURRENCY: 0}
        """Refusals since this worker started, by reason."""

    # --- the path of a request ----------------------------------------------------------------------------------------

    def try_charge(self, grant: KeyGrant, size: int) -> Charge | None:
        """Charge a request with a body of `size` bytes; None: only `charge` can tell."""
        account = self._accounts.get(grant.id)
        if account is None:
            return FREE
        allowance = account.allowance
        tokens = allowance.estimate(size)
        if account.waiting or not allowance.fits(tokens):
            return None
        allowance.take(tokens)
        return self._charged(account, tokens)

    async def charge(self, grant: KeyGrant, size: int) -> Charge:
        """Charge a request, waiting for a lease if need be.

        Raises `RateLimitedError`. It may be cancelled: then nothing was charged.
        """
        account = self._accounts.get(grant.id)
        if account is None:
            return FREE
        tokens, now = account.allowance.estimate(size), self._clock.monotonic()
        if account.allowance.alone:
            if self._is_linked and not account.allowance.is_asked(now):
                self._ask(account, account.allowance.wish(tokens, now))
            return self._charge_alone(account, tokens)
        if account.allowance.surely_lacks(tokens, now):
            raise self._refusal(account, tokens)
        return await self._wait(account, tokens)

    def settle(self, account: _Account, charged: int, used: int | None) -> None:
        """`Charge.settle`."""
        allowance = account.allowance
        allowance.settle(charged, used)
        if account.waiting:
            self._serve(account)
        if not allowance.at_rest():
            self._even_out(account, self._clock.monotonic())

    # --- what the bus says --------------------------------------------------------------------------------------------

    def replace(self, keys: dict[str, KeyGrant] | None) -> None:
        """From now on these keys hold."""
        before, self._accounts = self._accounts, {}
        for grant in (keys or {}).values():
            known = before.pop(grant.id, None)
            if known is not None and known.allowance.grant == grant:
                self._accounts[grant.id] = known
            elif _is_limited(grant):
                self._accounts[grant.id] = self._open(grant)
                if known is not None:
                    _dismiss(known)
        for account in before.values():
            _dismiss(account)

    def linked(self) -> None:
        """There is a control plane; it may be another than the last, and knows nothing of this worker."""
        self._is_linked = True
        for account in self._accounts.values():
            self._say(account.allowance.rejoin(afresh=True))

    def unlinked(self) -> None:
        """The control plane has gone."""
        self._is_linked = False
        for account in self._accounts.values():
            self._leave_alone(account)

    def heard(self, message: Lease | Recall) -> None:
        """Take in what the control plane says of one key; one that is not known was revoked."""
        account = self._accounts.get(message.key)
        if account is None:
            return
        allowance, now = account.allowance, self._clock.monotonic()
        if allowance.alone:
            self._say(allowance.rejoin(afresh=False))
        if isinstance(message, Recall):
            self._tell(allowance.recall(now))
            return
        allowance.heard(message, now)
        self._serve(account)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _open(self, grant: KeyGrant) -> _Account:
        allowance = Allowance(grant, self._workers)
        if not self._is_linked:
            allowance.leave_alone(self._clock.monotonic())
        return _Account(allowance)

    def _charged(self, account: _Account, tokens: int) -> Charge:
        """The charge for what was just taken; asks early for the next lease."""
        now = self._clock.monotonic()
        if not account.allowance.at_rest():
            wish = account.allowance.early_wish(now)
            if wish is not None:
                self._ask(account, wish)
        return Charge(self, account, tokens, account.allowance.headers(now))

    async def _wait(self, account: _Account, tokens: int) -> Charge:
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop.create_future(), tokens)
        account.waiting.append(waiter)
        waiter.timer = (self._call_later or loop.call_later)(LEASE_PATIENCE, partial(self._run_out, account, waiter))
        now = self._clock.monotonic()
        if not account.allowance.is_asked(now):
            self._ask(account, account.allowance.wish(tokens, now))
        try:
            return await waiter.charged
        except BaseException:
            done = waiter.charged
            if done.done() and not done.cancelled() and done.exception() is None:
                done.result().settle(0, 0)  # it was served in the turn in which the client left
            raise
        finally:
            waiter.timer.cancel()
            if waiter in account.waiting:
                account.waiting.remove(waiter)

    def _run_out(self, account: _Account, waiter: _Waiter) -> None:
        """A waiter's patience has ended."""
        if waiter.charged.done():
            return
        if account.allowance.answered:
            account.waiting.remove(waiter)
            waiter.charged.set_exception(self._refusal(account, waiter.tokens))
            self._serve(account)
        else:
            self._leave_alone(account)

    def _leave_alone(self, account: _Account) -> None:
        """The worker's own share decides from now on, for those who wait, too."""
        account.allowance.leave_alone(self._clock.monotonic())
        while account.waiting:
            waiter = account.waiting.popleft()
            if not waiter.charged.done():
                _decide(waiter.charged, partial(self._charge_alone, account, waiter.tokens))

    def _charge_alone(self, account: _Account, tokens: int) -> Charge:
        now = self._clock.monotonic()
        charged = account.allowance.take_alone(tokens, now)
        if charged is None:
            raise self._refusal(account, tokens)
        return Charge(self, account, charged, account.allowance.headers(now))

    def _serve(self, account: _Account) -> None:
        """Charge those who wait, in their order, as far as it goes; ask for the next, or refuse it if that is vain."""
        allowance, waiting = account.allowance, account.waiting
        while waiting:
            head, now = waiting[0], self._clock.monotonic()
            if not head.charged.done():
                if allowance.fits(head.tokens):
                    allowance.take(head.tokens)
                    head.charged.set_result(self._charged(account, head.tokens))
                elif allowance.is_asked(now):
                    return
                elif allowance.surely_lacks(head.tokens, now):
                    head.charged.set_exception(self._refusal(account, head.tokens))
                else:
                    self._ask(account, allowance.wish(head.tokens, now))
                    return
            waiting.popleft()

    def _ask(self, account: _Account, wish: LeaseWanted) -> None:
        account.allowance.ask(wish, self._clock.monotonic())
        self._tell(wish)

    def _even_out(self, account: _Account, now: Seconds) -> None:
        """After an end: give back what others may need, ask for what is soon needed."""
        if self._accounts.get(account.allowance.grant.id) is not account:
            return  # the key was revoked meanwhile
        self._say(account.allowance.give_back(now))
        wish = account.allowance.early_wish(now)
        if wish is not None:
            self._ask(account, wish)

    def _say(self, message: LeaseWanted | None) -> None:
        if message is not None:
            self._tell(message)

    def _refusal(self, account: _Account, tokens: int) -> RateLimitedError:
        allowance, now = account.allowance, self._clock.monotonic()
        reason, wait = allowance.lacks(tokens, now)
        self.rejections[reason] += 1
        limit = {
            REQUESTS: f"{allowance.grant.requests_per_minute} requests a minute",
            TOKENS: f"{allowance.grant.tokens_per_minute} tokens a minute (this request counts as about {tokens})",
            CONCURRENCY: f"{allowance.grant.concurrency} requests at the same time",
        }[reason]
        precise = (b"retry-after-ms", b"%d" % max(1, round(wait * 1000)))
        return RateLimitedError(
            f"This API key may send {limit}, and has. Try again in {max(wait, 0.1):.1f} s.",
            retry_after=wait,
            headers=(*allowance.headers(now), precise),
        )


def _is_limited(grant: KeyGrant) -> bool:
    return any(limit is not None for limit in (grant.requests_per_minute, grant.tokens_per_minute, grant.concurrency))


def _decide(charged: asyncio.Future[Charge], charge: Callable[[], Charge]) -> None:
    try:
        charged.set_result(charge())
    except RequestError as exc:
        charged.set_exception(exc)


def _dismiss(account: _Account) -> None:
    """The key is gone, or has other limits: whoever waits must show it again."""
    for waiter in account.waiting:
        if not waiter.charged.done():
            waiter.charged.set_exception(UnauthenticatedError("This API key was changed or revoked just now."))
    account.waiting.clear()
