"""Which adapters are wanted: the configuration's, and those loaded at run time."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

from server.config import AdapterSettings
from server.control.adapter_store import AdapterStore, Wanted
from server.control.adapter_verdict import Spot, read_adapter_or_why, verdict, wanted_on
from server.control.resolve import Resolved
from server.errors import CheckpointError
from server.models import AdapterCard

__all__ = ["WantedAdapters"]


class WantedAdapters:
    """The wanted set with each adapter's facts; `save` makes it survive."""

    def __init__(self, store: AdapterStore, configured: Iterable[AdapterSettings]) -> None:
        self._store = store
        self._configured = list(configured)
        self._wanted: dict[str, Wanted] = {}
        self._cards: dict[str, AdapterCard | str] = {}
        """By name: its facts, or why they cannot be read."""
        self._removed: set[str] = set()

    def read(self, models: Collection[str]) -> None:
        """The configuration's adapters, and what was loaded at run time onto any of `models`.

        Raises `CheckpointError` if the store is broken; the configuration's are wanted even then.
        """
        for entry in self._configured:
            self._add(entry.name, entry.model, entry.path)
        loaded, removed = self._store.read()
        for name in removed & self._wanted.keys():
            self.forget(name)
        self._removed = set(removed)
        for wanted in loaded:
            # The configuration wins where both name one; a model that is no longer served takes its adapters along.
            if wanted.model in models and wanted.name not in self._wanted:
                self._wanted[wanted.name] = wanted
                self._cards[wanted.name] = read_adapter_or_why(self._files(wanted))

    def _add(self, name: str, model: str, path: str) -> None:
        self._wanted[name] = Wanted(name=name, model=model, path=path, variants=None, source="config", digest=None)
        self._cards[name] = read_adapter_or_why(Path(path))

    def add(self, wanted: Wanted, card: AdapterCard) -> None:
        self._wanted[wanted.name] = wanted
        self._cards[wanted.name] = card

    def get(self, name: str) -> Wanted | None:
        return self._wanted.get(name)

    def all(self) -> list[Wanted]:
        """In the order in which they were wanted."""
        return list(self._wanted.values())

    def forget(self, name: str) -> None:
        """Want it no longer; one of the configuration's stays away until the launcher is another."""
        self._wanted.pop(name, None)
        self._cards.pop(name, None)
        if any(entry.name == name for entry in self._configured):
            self._removed.add(name)

    def save(self) -> None:
        self._store.write((wanted for wanted in self._wanted.values() if wanted.source == "runtime"), self._removed)

    async def keep(self, name: str) -> None:
        """Copy its files, so that later edits change nothing; what goes wrong is from then on why it is not loaded."""
        wanted = self._wanted[name]
        if isinstance(self._cards[name], str):
            return
        try:
            digest = await asyncio.to_thread(self._store.keep, name, self._files(wanted))
        except CheckpointError as exc:
            self._cards[name] = str(exc)
        else:
            self._wanted[name] = replace(wanted, digest=digest)

    def verdict(self, name: str, replica: Resolved) -> Spot | None:
        """Why the replica does not get the adapter; None: it does."""
        return verdict(self._wanted[name], replica, self._wanted.values(), self._cards)

    def due_on(self, replica: Resolved) -> list[Wanted]:
        """What the replica should hold."""
        return [
            wanted
            for wanted in wanted_on(replica, self._wanted.values())
            if wanted.digest is not None and self.verdict(wanted.name, replica) is None
        ]

    def _files(self, wanted: Wanted) -> Path:
        """The kept copy if there is one: the original may have changed or gone since."""
        if wanted.digest is not None and (copy := self._store.copy_of(wanted)).is_dir():
            return copy
        return Path(wanted.path)
