"""The meters of another node, through its `wattgate meter serve`.

A thread asks for readings; `read` gives the last one, so it never waits for the network.
"""

from __future__ import annotations

import math
import re
import threading
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec

from server.clock import Clock
from server.config import MeterSettings
from server.energy.agent import READING_PATH, NodeReading
from server.energy.counter import JUMPED, EnergyCounter
from server.energy.meter import DeviceReading, Reading
from server.errors import MeterError
from server.units import MICROJOULES_PER_JOULE, Joules, Microjoules, Seconds, Watts

__all__ = ["RemoteMeter", "RemoteNode"]

_EVERY: Final = Seconds(0.5)
"""Twice within a window of a second."""
_TIMEOUT: Final = Seconds(2.0)
_STALE_AFTER: Final = Seconds(5.0)
"""Older joules are no reading of now: windows would grow, and the series would look alive."""
_MOST: Final = Watts(20_000.0)
"""Any device of a node, whole nodes of eight GPUs included; it tells a gain from a jump."""
_MAX_DEVICES: Final = 256
_MAX_BYTES: Final = 2**20
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:,/-]{0,62}")
"""Of a device or a scope: they become metric labels."""


class RemoteNode:
    """Asks one node. Its clock is not ours: a reading is placed at the middle of the request, less its own age."""

    def __init__(
        self, url: str, *, name: str, token: str | None, clock: Clock, counters: dict[str, EnergyCounter] | None = None
    ) -> None:
        self._url = url + READING_PATH
        self._name = name
        self._clock = clock
        headers = {} if token is None else {b"authorization": b"Bearer " + token.encode()}
        self._client = httpx.Client(headers=headers, timeout=_TIMEOUT, trust_env=False)
        self._counters = {} if counters is None else counters

    def ask(self) -> Reading:
        """The node's reading, on our clock; the agent's counters may begin anew, these do not. Raises `MeterError`."""
        sent_at = self._clock.monotonic()
        said = self._decode(self._get())
        middle = (sent_at + self._clock.monotonic()) / 2
        at = Seconds(middle - said.age_s)
        missing = {f"{self._name}/{device}": reason for device, reason in said.missing.items()}
        devices = []
        for device in said.devices:
            name = f"{self._name}/{device.device}"
            joules = self._total(name, device.joules, at)
            if joules is None:
                missing[name] = JUMPED
            else:
                # Not by CPU time: that of its processes is not known here, and none of ours may be charged for it.
                devices.append(DeviceReading(device=name, scope=device.scope, joules=joules))
        return Reading(at=at, devices=tuple(devices), missing=missing)

    def close(self) -> None:
        self._client.close()

    def _get(self) -> bytes:
        try:
            with self._client.stream("GET", self._url) as answer:
                body = b""
                for chunk in answer.iter_bytes():
                    body += chunk
                    if len(body) > _MAX_BYTES:
                        raise MeterError(f"{self._url} sent more than {_MAX_BYTES} bytes: that is no meter.")
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise MeterError(
                f"{self._url} does not answer ({exc}): does `wattgate meter serve` run there, and is the address right?"
            ) from exc
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise MeterError(f"{self._url} refused the token: set the variable `token_env` to the other node's.")
        if answer.status_code != httpx.codes.OK:
            raise MeterError(f"{self._url} answered {answer.status_code}: {body[:300].decode(errors='replace')}")
        return body

    def _decode(self, body: bytes) -> NodeReading:
        try:
            said = msgspec.json.decode(body, type=NodeReading)
        except msgspec.MsgspecError as exc:
            raise MeterError(f"{self._url} sent no reading ({exc}): is it a meter agent of this version?") from exc
        sound = said.version == 1 and 0 <= said.age_s < math.inf and len(said.devices) <= _MAX_DEVICES
        if not sound or not all(_is_sound(device) for device in said.devices):
            raise MeterError(f"{self._url} sent what no meter says: is it a meter agent of this version?")
        return said

    def _total(self, name: str, joules: Joules, at: Seconds) -> Joules | None:
        counter = self._counters.setdefault(name, EnergyCounter(most=_MOST))
        return counter.advance(Microjoules(round(joules * MICROJOULES_PER_JOULE)), at)


class RemoteMeter:
    """One node. Its devices are named `NODE/DEVICE`, as in `node-b/gpu:0`."""

    def __init__(self, settings: MeterSettings, *, clock: Clock, every: Seconds = _EVERY) -> None:
        assert settings.url is not None, "the configuration sees to that"
        self._url = settings.url
        self._name = settings.name or urlsplit(settings.url).hostname or settings.url
        self._token = settings.token()
        self._clock = clock
        self._every = every
        self._counters: dict[str, EnergyCounter] = {}
        self._poll: _Poll | None = None

    @property
    def kind(self) -> str:
        return f"remote:{self._name}"

    def read(self) -> Reading:
        if self._poll is None:
            node = RemoteNode(self._url, name=self._name, token=self._token, clock=self._clock, counters=self._counters)
            self._poll = _Poll(node, self._every)
        last, problem = self._poll.last, self._poll.problem
        if last is None:
            raise MeterError(problem or f"{self._url} has not answered yet.")
        age = self._clock.monotonic() - last.at
        if age > _STALE_AFTER:
            raise MeterError(f"The last reading of {self._url} is {age:.0f} s old. {problem or ''}".rstrip())
        return last

    def close(self) -> None:
        if self._poll is not None:
            self._poll.end()
            self._poll = None


class _Poll:
    """A thread that asks the node again and again, until `end`."""

    def __init__(self, node: RemoteNode, every: Seconds) -> None:
        self.last: Reading | None = None
        self.problem: str | None = None
        """Of the last attempt."""
        self._node = node
        self._every = every
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="remote meter", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join(2 * _TIMEOUT)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self.last, self.problem = self._node.ask(), None
            except MeterError as exc:
                self.problem = str(exc)
            self._ended.wait(self._every)
        self._node.close()


def _is_sound(device: DeviceReading) -> bool:
    named = _NAME.fullmatch(device.device) and _NAME.fullmatch(device.scope)
    return bool(named) and 0 <= device.joules < math.inf
