"""Clients that ask on and on, and what became of each request."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest

from tests.integration.fleet import Fleet, chat

__all__ = ["BOUND_S", "Load", "logged", "under_load"]

BOUND_S = 60.0


@dataclass
class Load:
    """Everything that was asked; written by the clients, one lock for all."""

    ids: list[str] = field(default_factory=list)
    """Of the requests that were answered with 200."""
    failures: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    progress: threading.Condition = field(default_factory=threading.Condition)

    def go_on(self, count: int = 50) -> None:
        """Until so many more requests were answered."""
        with self.progress:
            wanted = len(self.ids) + count
            if not self.progress.wait_for(lambda: len(self.ids) >= wanted, BOUND_S):
                pytest.fail(f"no {count} requests answered in {BOUND_S:.0f} s; failures: {self.failures[:5]}")

    def ask_on(self, gateway: Fleet, model: str, *, keep_alive: bool) -> None:
        """One client, until it is over."""
        limits = httpx.Limits(max_keepalive_connections=None if keep_alive else 0)
        with httpx.Client(base_url=gateway.gateway, timeout=BOUND_S, limits=limits, trust_env=False) as client:
            while not self.over.is_set():
                self._ask(client, model)

    def _ask(self, client: httpx.Client, model: str) -> None:
        began = time.monotonic()
        try:
            answer = client.post("/v1/chat/completions", json=chat(model))
        except httpx.HTTPError as exc:
            problem = f"{exc!r} after {time.monotonic() - began:.3f} s"
        else:
            problem = "" if answer.status_code == 200 else f"{answer.status_code} {answer.text}"
        with self.progress:
            if problem:
                self.failures.append(problem)
            else:
                self.ids.append(answer.headers["x-request-id"])
            self.progress.notify_all()


@contextlib.contextmanager
def under_load(gateway: Fleet, *, clients: int = 4, model: str = "demo", keep_alive: bool = True) -> Iterator[Load]:
    """Clients ask while the block runs; when it is left, all have their last answer."""
    load = Load()
    threads = [
        threading.Thread(target=load.ask_on, args=(gateway, model), kwargs={"keep_alive": keep_alive})
        for _ in range(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        load.go_on()
        yield load
    finally:
        load.over.set()
        for thread in threads:
            thread.join(BOUND_S)


def logged(gateway: Fleet) -> Counter[str]:
    """How often each request stands in the request log."""
    path = gateway.state_dir / "logs" / "requests.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return Counter(json.loads(line)["id"] for line in lines)
