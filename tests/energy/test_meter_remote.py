"""Another node's meters over a real socket: clocks, tokens, nonsense, silence."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from server.config import MeterSettings
from server.energy import Reading
from server.energy.agent import READING_PATH
from server.energy.remote import RemoteMeter, RemoteNode
from server.errors import MeterError
from server.units import Seconds
from tests.fakes.clock import FakeClock
from tests.fakes.meter import FakeMeter
from tests.fakes.meter_node import MeterNode


@pytest.fixture
def there() -> FakeClock:
    """The other node's clock, which has nothing to do with ours."""
    return FakeClock(monotonic=5.0)


@pytest.fixture
def here() -> FakeClock:
    return FakeClock(monotonic=90_000.0)


@pytest.fixture
def gpu(there: FakeClock) -> FakeMeter:
    return FakeMeter(there, "gpu:0")


@pytest.fixture
def ours(here: FakeClock) -> FakeMeter:
    """Of a node on this host."""
    return FakeMeter(here, "gpu:0")


@pytest.fixture
def package(there: FakeClock) -> FakeMeter:
    return FakeMeter(there, "package:0", "package", by_cpu_time=True, kind="fake package")


@contextmanager
def serving(*meters: FakeMeter, clock: FakeClock, token: str | None = None) -> Iterator[MeterNode]:
    node = MeterNode(meters, clock=clock, token=token)
    try:
        yield node
    finally:
        node.stop()


@contextmanager
def asking(node: MeterNode, clock: FakeClock, token: str | None = None, path: str = "") -> Iterator[RemoteNode]:
    asker = RemoteNode(node.url + path, name="node-b", token=token, clock=clock)
    try:
        yield asker
    finally:
        asker.close()


def joules(reading: Reading) -> dict[str, float]:
    return {device.device: device.joules for device in reading.devices}


def test_devices_of_a_node_begin_with_its_name_and_keep_their_scope(
    gpu: FakeMeter, package: FakeMeter, there: FakeClock, here: FakeClock
) -> None:
    gpu.use(12.5)
    package.use(3.0)
    with serving(gpu, package, clock=there) as node, asking(node, here) as asker:
        reading = asker.ask()
    assert joules(reading) == {"node-b/gpu:0": 12.5, "node-b/package:0": 3.0}
    assert [device.scope for device in reading.devices] == ["gpu", "package"]
    assert not any(device.by_cpu_time for device in reading.devices)  # that of our processes is not meant


def test_reading_lies_on_our_clock_less_its_age_over_there(gpu: FakeMeter, there: FakeClock, here: FakeClock) -> None:
    class Old(FakeMeter):
        """Reads 3 s late, as another node's meter may."""

        def read(self) -> Reading:
            reading = super().read()
            return Reading(at=Seconds(reading.at - 3.0), devices=reading.devices)

    with serving(Old(there), clock=there) as node, asking(node, here) as asker:
        assert asker.ask().at == here.monotonic() - 3.0
    with serving(gpu, clock=there) as node, asking(node, here) as asker:
        assert asker.ask().at == here.monotonic()


def test_reading_is_placed_in_the_middle_of_its_request(gpu: FakeMeter, there: FakeClock) -> None:
    class Slow(FakeClock):
        """A second between two looks."""

        def monotonic(self) -> Seconds:
            self.advance(1.0)
            return super().monotonic()

    with serving(gpu, clock=there) as node, asking(node, Slow(0.0)) as asker:
        assert asker.ask().at == 1.5


def test_agent_that_begins_anew_does_not_set_joules_back(gpu: FakeMeter, there: FakeClock, here: FakeClock) -> None:
    gpu.use(100.0)
    with serving(gpu, clock=there) as node, asking(node, here) as asker:
        assert joules(asker.ask()) == {"node-b/gpu:0": 100.0}
        gpu.restart()
        gpu.use(4.0)
        assert joules(asker.ask()) == {"node-b/gpu:0": 104.0}


def test_meter_that_fails_over_there_is_missing_here_and_the_others_go_on(
    gpu: FakeMeter, package: FakeMeter, there: FakeClock, here: FakeClock
) -> None:
    with serving(gpu, package, clock=there) as node, asking(node, here) as asker:
        package.fail()
        reading = asker.ask()
        assert joules(reading).keys() == {"node-b/gpu:0"}
        assert reading.missing == {"node-b/fake package": "The fake device is gone; call recover."}
        gpu.fail()
        with pytest.raises(MeterError, match=r"503.*The fake device is gone"):
            asker.ask()


@pytest.mark.parametrize(("given", "passes"), [("s3cret", True), ("other", False), (None, False)])
def test_agent_with_a_token_answers_only_who_has_it(
    gpu: FakeMeter, there: FakeClock, here: FakeClock, given: str | None, passes: bool
) -> None:
    with serving(gpu, clock=there, token="s3cret") as node, asking(node, here, token=given) as asker:
        if passes:
            assert asker.ask().devices
        else:
            with pytest.raises(MeterError, match=r"refused the token.*token_env"):
                asker.ask()


def answer(node: MeterNode, method: str = "GET", path: str = READING_PATH, host: str = "localhost:1") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(node.url).port or 0, timeout=10)
    try:
        connection.request(method, path, headers={"host": host})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("method", "path", "host", "status"),
    [
        ("GET", READING_PATH, "localhost:8082", 200),
        ("GET", READING_PATH, "[::1]:8082", 200),
        ("GET", READING_PATH, "127.0.0.1", 200),
        ("GET", READING_PATH, "rebound.example:8082", 421),
        ("GET", "/", "localhost", 404),
        ("POST", READING_PATH, "localhost", 405),
    ],
)
def test_agent_without_a_token_answers_one_question_under_a_loopback_name(
    gpu: FakeMeter, there: FakeClock, method: str, path: str, host: str, status: int
) -> None:
    with serving(gpu, clock=there) as node:
        assert answer(node, method, path, host) == status


@contextmanager
def saying(body: bytes, status: str = "200 OK") -> Iterator[str]:
    """A server that answers anything with this, once."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            connection.sendall(head.encode() + body)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        thread.join(10.0)
        listener.close()


def said(**changes: Any) -> bytes:
    device = {"device": "gpu:0", "scope": "gpu", "joules": 1.0, **changes.pop("of_device", {})}
    return json.dumps({"version": 1, "age_s": 0.0, "devices": [device], **changes}).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        said(version=2),
        said(age_s=-1.0),
        said(age_s=1e400),
        said(age_s="NaN"),
        said(of_device={"joules": -1.0}),
        said(of_device={"joules": None}),
        said(of_device={"device": 'gpu:0"} 1\n'}),
        said(of_device={"scope": ""}),
        said(devices=[{"device": f"gpu:{n}", "scope": "gpu", "joules": 1.0} for n in range(300)]),
    ],
)
def test_nonsense_is_a_meter_error(body: bytes, here: FakeClock) -> None:
    with saying(body) as url:
        asker = RemoteNode(url, name="node-b", token=None, clock=here)
        with pytest.raises(MeterError, match="meter agent of this version"):
            asker.ask()
        asker.close()


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [(b"x" * (2**20 + 1), "200 OK", "bytes"), (b"gone", "502 Bad Gateway", "502: gone"), (b"", "302 Found", "302")],
)
def test_answer_that_is_no_answer_is_a_meter_error(body: bytes, status: str, says: str, here: FakeClock) -> None:
    with saying(body, status) as url:
        asker = RemoteNode(url, name="node-b", token=None, clock=here)
        with pytest.raises(MeterError, match=says):
            asker.ask()
        asker.close()


def test_node_that_nobody_listens_at_is_a_meter_error(here: FakeClock) -> None:
    asker = RemoteNode("http://127.0.0.1:9", name="node-b", token=None, clock=here)
    with pytest.raises(MeterError, match="wattgate meter serve"):
        asker.ask()
    asker.close()


@contextmanager
def meter_of(node: MeterNode, clock: FakeClock, **settings: Any) -> Iterator[RemoteMeter]:
    wanted = MeterSettings(kind="remote", url=node.url, **settings)
    meter = RemoteMeter(wanted, clock=clock, every=Seconds(0.01))
    try:
        yield meter
    finally:
        meter.close()


def first(meter: RemoteMeter, node: MeterNode) -> Reading:
    with pytest.raises(MeterError, match="has not answered yet"):
        meter.read()
    node.wait_answers(2)
    return meter.read()


def test_name_of_a_node_is_its_host_unless_it_is_given(ours: FakeMeter, here: FakeClock) -> None:
    with serving(ours, clock=here) as node, meter_of(node, here) as meter:
        assert meter.kind == "remote:127.0.0.1"
        assert joules(first(meter, node)).keys() == {"127.0.0.1/gpu:0"}


def test_silent_node_is_read_from_memory_until_that_is_stale(ours: FakeMeter, here: FakeClock) -> None:
    with serving(ours, clock=here) as node, meter_of(node, here, name="node-b") as meter:
        reading = first(meter, node)
        ours.fail()
        node.wait_answers(3)
        here.advance(4.9)
        assert meter.read() == reading
        here.advance(0.2)
        with pytest.raises(MeterError, match=r"5 s old.*The fake device is gone"):
            meter.read()
        ours.recover()
        node.wait_answers(3)
        assert meter.read().at == here.monotonic()


def test_token_comes_from_the_named_variable(ours: FakeMeter, here: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_B_TOKEN", "s3cret")
    with (
        serving(ours, clock=here, token="s3cret") as node,
        meter_of(node, here, name="node-b", token_env="NODE_B_TOKEN") as meter,
    ):
        assert first(meter, node).devices


def test_closed_meter_asks_no_more(ours: FakeMeter, here: FakeClock) -> None:
    with serving(ours, clock=here) as node, meter_of(node, here) as meter:
        first(meter, node)
        meter.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "remote meter"]
