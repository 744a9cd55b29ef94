"""What the energy benchmark sends: a mixed load, and blocks of requests that differ in one thing only."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from loadgen._prompts import Prompts

__all__ = ["Ask", "Client", "Keys", "Mix", "exact_prompt", "together"]

Keys = dict[str, str]
"""Tenant → API key."""

_TIMEOUT: Final = httpx.Timeout(180.0)
_VOCABULARY: Final = range(300, 4000)
"""Of the demo's tokenizer: past the single bytes, before the special tokens."""
_WORDS: Final = (8, 40, 120, 250)
_LENGTHS: Final = (16, 48, 96, 160)
_CLIENTS: Final = 6
_STREAMED: Final = 0.6
_CANCELLED: Final = 0.15
"""Of the streams."""
_PAUSE_S: Final = 0.2
_SALT: Final = "energy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request."""

    model: str
    prompt: Sequence[int] | str
    """Tokens, so that its length is exact; or words, for a chat."""
    max_tokens: int
    group: str
    """The experiment."""
    block: int = 0
    role: str = ""
    """What it is compared as, with others of its block."""
    tenant: str = "alpha"
    stream: bool = True
    leave_after: int | None = None
    """Chunks with tokens, after which the client leaves; None: it stays."""

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if isinstance(self.prompt, str) else "/v1/completions"

    def body(self) -> dict[str, Any]:
        said = {"messages": [{"role": "user", "content": self.prompt}]} if isinstance(self.prompt, str) else None
        length = {"max_tokens": self.max_tokens, "ignore_eos": True, "temperature": 0}
        usage = {"stream": True, "stream_options": {"include_usage": True}} if self.stream else {}
        return {"model": self.model, **(said or {"prompt": list(self.prompt)}), **length, **usage}


@dataclass(slots=True)
class Client:
    """Sends requests, each by an id of its own, and remembers which was which."""

    http: httpx.AsyncClient
    keys: Keys
    run: str
    """Stands in every id."""
    asked: dict[str, Ask] = field(default_factory=dict)
    came: dict[str, tuple[float, float]] = field(default_factory=dict)
    """First and last token of streams, monotonic seconds."""
    provisional: dict[str, float] = field(default_factory=dict)
    """Joules by the header of whole answers."""
    problems: Counter[str] = field(default_factory=Counter)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    @classmethod
    @asynccontextmanager
    async def at(cls, url: str, keys: Keys, run: str) -> AsyncIterator[Client]:
        """A client of the gateway at `url`."""
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT, limits=limits, trust_env=False) as http:
            yield cls(http, keys, run)

    async def send(self, ask: Ask) -> str:
        """Send it and read the answer, or a part of it; returns its id."""
        id_ = f"{self.run}-{next(self._numbers)}"
        self.asked[id_] = ask
        headers = {"x-request-id": id_, "authorization": f"Bearer {self.keys[ask.tenant]}"}
        try:
            if ask.stream:
                await self._stream(ask, headers, id_)
            else:
                await self._whole(ask, headers, id_)
        except httpx.HTTPError as exc:
            self.problems[type(exc).__name__] += 1
        return id_

    async def _stream(self, ask: Ask, headers: dict[str, str], id_: str) -> None:
        async with self.http.stream("POST", ask.path, json=ask.body(), headers=headers) as answer:
            if answer.status_code != 200:
                self.problems[str(answer.status_code)] += 1
                return
            chunks = 0
            async for line in answer.aiter_lines():
                if line.startswith("data: {") and json.loads(line[6:])["choices"]:
                    chunks, now = chunks + 1, time.monotonic()
                    self.came[id_] = (self.came.get(id_, (now,))[0], now)
                if chunks == ask.leave_after:
                    return

    async def _whole(self, ask: Ask, headers: dict[str, str], id_: str) -> None:
        answer = await self.http.post(ask.path, json=ask.body(), headers=headers)
        if answer.status_code != 200:
            self.problems[str(answer.status_code)] += 1
        elif "x-wattgate-energy-joules" in answer.headers:
            self.provisional[id_] = float(answer.headers["x-wattgate-energy-joules"])


async def together(client: Client, asks: Iterable[Ask]) -> list[str]:
    """All of them at the same time."""
    return list(await asyncio.gather(*map(client.send, asks)))


def exact_prompt(chance: random.Random, tokens: int) -> list[int]:
    """Random tokens: no prefix cache holds them."""
    return chance.choices(_VOCABULARY, k=tokens)


class Mix:
    """Clients that each send one request after the other: base and adapters, two tenants, streams and whole answers."""

    def __init__(self, models: Sequence[str], tenants: Sequence[str], chance: random.Random, salt: str) -> None:
        self._models = models
        self._tenants = tenants
        self._chance = chance
        self._prompts = Prompts(seed=0, salt=f"{_SALT} {salt}")
        self._number = itertools.count()

    async def run(self, client: Client, seconds: float) -> None:
        """Until so many seconds have passed; what runs then ends as it would."""
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(_CLIENTS):
                group.create_task(self._one_client(client, until))

    async def _one_client(self, client: Client, until: float) -> None:
        while time.monotonic() < until:
            await client.send(self._ask())
            await asyncio.sleep(self._chance.expovariate(1 / _PAUSE_S))

    def _ask(self) -> Ask:
        chance = self._chance
        stream, length = chance.random() < _STREAMED, chance.choice(_LENGTHS)
        leaves = stream and chance.random() < _CANCELLED
        return Ask(
            model=chance.choice(self._models),
            prompt=self._prompts.text(next(self._number), chance.choice(_WORDS)),
            max_tokens=length,
            group="mix",
            tenant=chance.choice(self._tenants),
            stream=stream,
            leave_after=chance.randrange(1, length) if leaves else None,
        )
