"""Lets other nodes read this node's meters, over HTTP: `wattgate meter serve`.

`GET /v1/reading` answers with a `NodeReading`, or 503 and `{"error": …}` where no meter can be read. With a token, only
who sends it as `Authorization: Bearer …` is answered; without one, only callers who name this host by a loopback name.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final

import msgspec

from server.clock import Clock
from server.energy.meter import DeviceReading, EnergyMeter
from server.errors import MeterError
from server.units import Seconds

__all__ = ["READING_PATH", "MeterAgent", "NodeReading"]

READING_PATH: Final = "/v1/reading"
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


class NodeReading(msgspec.Struct, frozen=True, kw_only=True):
    """All that the node's meters say. Clocks of two nodes are not compared: the answer says how old it is."""

    version: int = 1
    age_s: float
    """How long before this answer the readings were taken."""
    devices: list[DeviceReading]
    missing: dict[str, str] = msgspec.field(default_factory=dict)
    """Devices, or whole meters by their kind, that could not be read, and why."""


class MeterAgent:
    """An ASGI application."""

    def __init__(self, meters: Sequence[EnergyMeter], *, clock: Clock, token: str | None) -> None:
        self._meters = meters
        self._clock = clock
        self._token = token
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self, scope: _Message, _receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            return
        status, body = await self._answer(scope)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: _Message) -> tuple[int, bytes]:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refused(headers)
        if refused is not None:
            return refused
        if scope["path"] != READING_PATH:
            return _error(404, f"There is only GET {READING_PATH}.")
        if scope["method"] != "GET":
            return _error(405, f"There is only GET {READING_PATH}.")
        async with self._one_at_a_time:
            try:
                return 200, msgspec.json.encode(await asyncio.to_thread(self.read))
            except MeterError as exc:
                return _error(503, str(exc))

    def _refused(self, headers: dict[bytes, str]) -> tuple[int, bytes] | None:
        if self._token is not None:
            given = headers.get(b"authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self._token.encode()):
                return _error(401, "The token is missing or wrong: send it as `Authorization: Bearer …`.")
        elif not _LOOPBACK_NAMES & {headers.get(b"host", ""), headers.get(b"host", "").rpartition(":")[0]}:
            return _error(421, "Without a token only this host is answered, by a loopback name.")
        return None

    def read(self) -> NodeReading:
        """All meters. Raises `MeterError` if none can be read."""
        devices: list[DeviceReading] = []
        missing: dict[str, str] = {}
        oldest: Seconds | None = None
        for meter in self._meters:
            try:
                reading = meter.read()
            except MeterError as exc:
                missing[meter.kind] = str(exc)
                continue
            devices += reading.devices
            missing.update(reading.missing)
            oldest = reading.at if oldest is None else min(oldest, reading.at)
        if oldest is None:
            raise MeterError(" ".join(missing.values()) or "This node has no meter.")
        return NodeReading(age_s=max(0.0, self._clock.monotonic() - oldest), devices=devices, missing=missing)


def _error(status: int, message: str) -> tuple[int, bytes]:
    return status, json.dumps({"error": message}).encode()
