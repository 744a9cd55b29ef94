"""What the running control plane knows of the keys, and who is told when they change."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from server.clock import Clock
from server.control.keys import Key, KeyKind, KeyStore, NewKey, digest_of
from server.errors import ConflictError
from server.wire import KeyGrant

__all__ = ["KeyBook"]

_LONGEST_SLEEP_S: Final = 3600.0
"""The wall clock may be set: look again at what expires."""


class KeyBook:
    """All keys, in memory; every change is on the disk before it counts.

    What a key once closed stays closed: after the last one of its kind was revoked or has expired, nobody gets in, on
    loopback, too. Otherwise a revocation, or the mere passing of time, could open a gateway to everybody.
    """

    def __init__(
        self, store: KeyStore, clock: Clock, *, always_closed: Iterable[KeyKind], changed: Callable[[], None]
    ) -> None:
        """`always_closed`: kinds without which nobody gets in even if there never was one.

        `changed` is called after each change, before whoever asked for it hears that it is done.
        """
        self._store = store
        self._clock = clock
        self._changed = changed
        self._always_closed = frozenset(always_closed)
        self._keys: list[Key] = []
        self._told: frozenset[str] = frozenset()
        self._writing = asyncio.Lock()
        self._reread = asyncio.Event()

    async def load(self) -> None:
        """Read the store."""
        self._keys = await asyncio.to_thread(self._store.listed)
        self._reread.set()
        self._tell(self._clock.wall())

    def listed(self) -> list[Key]:
        return list(self._keys)

    def grants(self) -> dict[str, KeyGrant] | None:
        """Of the clients' keys that hold, by digest; None: there never was one, and everybody may come in."""
        if not self.closes(KeyKind.CLIENT):
            return None
        return {key.digest: key.grant() for key in self._holding(KeyKind.CLIENT)}

    def closes(self, *kinds: KeyKind) -> bool:
        """Whether one of these kinds is needed: there ever was one, or others than this machine reach the port."""
        return any(kind in self._always_closed or self._exists(kind) for kind in kinds)

    def opens(self, secret: str, *kinds: KeyKind) -> bool:
        """Whether this is a key of one of these kinds, and holds; takes as long for every wrong one."""
        digest = digest_of(secret)
        found = False
        for kind in kinds:
            for key in self._holding(kind):
                found |= hmac.compare_digest(digest, key.digest)
        return found

    async def create(self, wanted: NewKey) -> tuple[Key, str]:
        """Make a key; see `KeyStore.create`."""
        async with self._writing:
            made = await asyncio.to_thread(self._store.create, wanted)
            await self.load()
        return made

    async def revoke(self, key_id: str) -> Key:
        """Revoke a key; see `KeyStore.revoke`. The last admin key cannot be revoked: nobody could make another."""
        async with self._writing:
            admins = [key.id for key in self._holding(KeyKind.ADMIN)]
            if admins == [key_id]:
                raise ConflictError(
                    f"{key_id} is the last admin key; nobody could do anything here without it. "
                    "Make another first: wattgate key create --admin",
                    param="id",
                )
            revoked = await asyncio.to_thread(self._store.revoke, key_id)
            await self.load()
        return revoked

    async def run(self) -> None:
        """Tell of keys that expire, until cancelled."""
        while True:
            self._reread.clear()
            now = self._clock.wall()
            if self._in_force(now) != self._told:
                self._tell(now)
            ends = [key.expires - now for key in self._keys if key.holds(now) and key.expires is not None]
            with suppress(TimeoutError):
                async with asyncio.timeout(min([*ends, _LONGEST_SLEEP_S])):
                    await self._reread.wait()

    def _tell(self, now: float) -> None:
        self._told = self._in_force(now)
        self._changed()

    def _in_force(self, now: float) -> frozenset[str]:
        return frozenset(key.id for key in self._keys if key.holds(now))

    def _exists(self, kind: KeyKind) -> bool:
        return any(key.kind is kind for key in self._keys)

    def _holding(self, kind: KeyKind) -> list[Key]:
        now = self._clock.wall()
        return [key for key in self._keys if key.kind is kind and key.holds(now)]
