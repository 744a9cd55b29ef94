"""The client's way to the server and back, byte by byte, on real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

import gevent
import pytest
from gevent.event import Event
from planned import plan, prepared
from scripted_server import scripted_server

from loadgen._client import Client
from loadgen._connection import Clocks
from loadgen._dispatch import dispatch
from loadgen._prompts import Calibration
from loadgen._record import Record
from loadgen._run import Run, Share
from loadgen._transport import Connections

_CALIBRATION = Calibration(fixed_tokens=7.0, tokens_a_word=2.0)
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
_TOKEN = b'data: {"model":"m","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
_DONE = b"data: [DONE]\n\n"


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b""))


class ByteServer:
    """Answers the requests of each connection with the next bytes of its script, then closes it."""

    def __init__(self, *connections: Sequence[bytes]) -> None:
        self._script = list(connections)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(10)
        self.requests: list[bytes] = []
        self.answered = threading.Event()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        for answers in self._script:
            connection, _ = self._listener.accept()
            with connection:
                for answer in answers:
                    self.requests.append(_request(connection))
                    connection.sendall(answer)
                    self.answered.set()

    def close(self) -> None:
        self._listener.close()


def _request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65_536)
    head, _, body = data.partition(b"\r\n\r\n")
    (length,) = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    while len(body) < length:
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body


@contextmanager
def byte_server(*connections: Sequence[bytes]) -> Iterator[ByteServer]:
    server = ByteServer(*connections)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        thread.join(20)
        server.close()


class Sending:
    """A run of one process, without Locust; closes its connections."""

    def __init__(self, url: str, *arguments: str, model: str = "m", run_time: float | None = None) -> None:
        of = plan("--output-tokens", "3", *arguments, host=url, run_time=run_time)
        self.run = Run(of, prepared(model, calibration=_CALIBRATION), share=Share(index=0, of=1), clock=time.monotonic)
        self.told: list[Record] = []
        self.connections = Connections(of.host, Clocks(now_s=self.run.now_s, wall_ns=time.time_ns))
        self.client = Client(self.run, self.connections, self.told.append)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connections.close()

    def one(self) -> Record:
        job = self.run.next_job()
        assert job is not None
        self.client.send(self.client.letter(job))
        return self.run.records[-1]


WHOLE = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(_TOKEN, _TOKEN, _DONE)


def test_connection_serves_one_request_after_another() -> None:
    with byte_server([WHOLE, WHOLE, WHOLE]) as server, Sending(server.url) as sending:
        records = [sending.one() for _ in range(3)]
    assert [record.error for record in records] == [None] * 3
    assert len(server.requests) == 3
    assert sending.told == records


def test_request_bears_its_host_id_key_and_length() -> None:
    with byte_server([WHOLE]) as server, Sending(server.url, "--api-key", "sk-1", "--salt", "s") as sending:
        sending.one()
    head = server.requests[0].partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert head[0] == b"POST /v1/chat/completions HTTP/1.1"
    assert {b"Host: " + server.url[7:].encode(), b"Authorization: Bearer sk-1", b"x-request-id: load-s-0"} <= set(head)


def test_idle_connection_that_the_server_closed_costs_no_request() -> None:
    with byte_server([WHOLE], [WHOLE]) as server, Sending(server.url) as sending:
        records = [sending.one(), sending.one()]
    assert [record.error for record in records] == [None, None]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "connect"),
        (b"HTTP/1.1 200 OK\r\nContent-", "connect"),
        (b"SSH-2.0-server\r\n", "connect"),
        (_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(_TOKEN)[:-5], "truncated"),
        (_HEAD + b"Content-Length: 9000\r\n\r\n" + _TOKEN, "truncated"),
        (_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "truncated"),
        (b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\n\r\nlate", "http_429"),
        (b"HTTP/1.1 503 Gone\r\nContent-Length: 40\r\n\r\nla", "http_503"),
        (_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"data: {broken\n\n", _DONE), "malformed"),
    ],
)
def test_answer_that_is_cut_or_wrong_is_a_failure_of_its_kind(answer: bytes, error: str) -> None:
    with byte_server([answer]) as server, Sending(server.url) as sending:
        record = sending.one()
    assert record.error == error
    assert record.message is not None


@pytest.mark.parametrize(
    "answer",
    [
        _HEAD + b"Connection: close\r\n\r\n" + _TOKEN + _DONE,
        _HEAD + b"Content-Length: %d\r\n\r\n" % len(_TOKEN + _DONE) + _TOKEN + _DONE,
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + WHOLE,
        # The last line without its end.
        _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(_TOKEN, b"data: [DONE]"),
    ],
)
def test_answer_is_whole_however_its_end_is_marked(answer: bytes) -> None:
    with byte_server([answer]) as server, Sending(server.url) as sending:
        assert sending.one().error is None


def test_nobody_there_is_a_failure_to_connect() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with Sending(url) as sending:
        assert sending.one().error == "connect"


def test_tokens_bear_the_time_at_which_the_kernel_received_them() -> None:
    """However late they are read: here the loop is held up while they arrive."""
    with byte_server([WHOLE, WHOLE]) as server, Sending(server.url) as sending:
        sending.one()
        # Linux stamps from some moment on after the first socket has asked for it.
        time.sleep(0.05)
        server.answered.clear()
        reading = gevent.spawn(sending.one)
        while len(server.requests) < 2:
            gevent.sleep(0)
        # Not gevent's: the loop stands still until every byte has come, and for a while more.
        assert server.answered.wait(10)
        held_until_s = sending.run.now_s()
        time.sleep(0.05)
        record = reading.get(timeout=10)
    assert record.receive_lag_s is not None
    assert record.sent_s <= record.token_s[0] <= record.ended_s
    # The clocks are put on one another by two readings: this machine may be away between them.
    assert record.ended_s <= held_until_s + 0.025
    assert sending.run.receive_lag.histogram.count >= record.reads


def test_schedule_is_sent_in_its_order_and_never_early() -> None:
    with scripted_server("m") as server, Sending(server.url, "--rate", "200", run_time=0.5) as sending:
        dispatch(sending.client, sending.run, Event())
    sent = sorted(sending.run.records, key=lambda record: record.index)
    assert sending.run.schedule_times is not None
    assert [record.scheduled_s for record in sent] == sending.run.schedule_times.tolist()
    assert all(record.sent_s >= record.scheduled_s for record in sent)
    assert [record.error for record in sent] == [None] * len(sent)
    assert sending.run.ended


def test_what_goes_beyond_the_bound_in_flight_is_dropped_and_counted() -> None:
    options = ("--rate", "100", "--max-in-flight", "2")
    with scripted_server("stuck") as server, Sending(server.url, *options, model="stuck", run_time=0.3) as sending:
        stopping = Event()
        greenlet = gevent.spawn(dispatch, sending.client, sending.run, stopping)
        while not sending.run.ended:
            gevent.sleep(0.01)
        greenlet.kill()
    assert sending.run.schedule_times is not None
    assert sending.run.dropped == len(sending.run.schedule_times) - 2
    assert (sending.run.unfinished, sending.run.records, sending.run.in_flight) == (2, [], 0)


def test_stop_sends_nothing_more_and_lets_answers_finish() -> None:
    with scripted_server("m") as server, Sending(server.url, "--rate", "50", run_time=600.0) as sending:
        stopping = Event()
        greenlet = gevent.spawn(dispatch, sending.client, sending.run, stopping)
        while len(sending.run.records) < 5:
            gevent.sleep(0.01)
        stopping.set()
        greenlet.join(timeout=20)
        assert greenlet.ready()
    assert len(server.chats) == sending.run.sent == len(sending.run.records)
