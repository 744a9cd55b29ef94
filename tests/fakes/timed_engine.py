"""An engine that answers by a timetable and writes down when each piece left.

It runs as a process of its own (`python -m tests.fakes.timed_engine [PORT]` says its address on standard output), so
that nothing of the client under test delays it. The model's name chooses the timetable. `GET /log` gives, for every
request, the CLOCK_MONOTONIC times at which it was read and at which each piece was handed to the kernel: that, and not
the timetable, is the truth that a client's figures are held against.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import httpx

__all__ = ["TIMETABLES", "TimedEngine", "Timetable", "timed_engine"]

FIXED_TOKENS: Final = 7
"""Prompt tokens = FIXED_TOKENS + 2 a word."""
_START_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """When a model writes what, from the moment its request is read."""

    first_s: float = 0.15
    gap_s: float = 0.02
    chunk_tokens: tuple[int, ...] = (1,)
    """Tokens of each chunk, over and over."""
    reasoning_tokens: int = 0
    """Of the first chunks; they carry `reasoning_content`."""
    usage: str = "end"
    """`end`, `none` or `each` (in every chunk)."""
    stall_at: int | None = None
    """The chunk before which it pauses."""
    stall_s: float = 0.0
    cut_at: int | None = None
    """The chunk instead of which it closes the connection."""


TIMETABLES: Final = {
    "plain": Timetable(),
    "several": Timetable(chunk_tokens=(3,)),
    "counted": Timetable(chunk_tokens=(1, 2, 3), usage="each"),
    "reasoning": Timetable(reasoning_tokens=4),
    "silent": Timetable(usage="none"),
    "stalling": Timetable(stall_at=4, stall_s=0.4),
    "cut": Timetable(cut_at=3),
    "steady": Timetable(first_s=0.1, gap_s=0.02),
}


@dataclass(slots=True)
class _Answer:
    """What the log says of one request; times are CLOCK_MONOTONIC."""

    request_id: str | None
    model: str
    streamed: bool
    prompt_tokens: int
    received_s: float
    pieces: list[dict[str, Any]] = field(default_factory=list)
    """`kind` (role, token, usage, done, body), `tokens`, `before_s` and `after_s` of the write."""


class _Connection(asyncio.Protocol):
    """One connection, one answer after another."""

    def __init__(self, log: list[_Answer]) -> None:
        self._log = log
        self._buffer = b""
        self._answering: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        for task in self._answering:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        request_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        method, path, *_ = request_line.split()
        if method == "GET":
            self._get(path)
        elif path != "/v1/chat/completions":
            self._transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        else:
            self._post(headers.get("x-request-id"), json.loads(rest[:length]), time.monotonic())

    def _get(self, path: str) -> None:
        if path == "/log":
            self._whole([{name: getattr(one, name) for name in _Answer.__slots__} for one in self._log])
        else:
            self._whole({"object": "list", "data": [{"id": id_, "max_model_len": 1024} for id_ in TIMETABLES]})

    def _post(self, request_id: str | None, body: dict[str, Any], received_s: float) -> None:
        answer = _Answer(request_id, body["model"], bool(body.get("stream")), _prompt_tokens(body), received_s)
        self._log.append(answer)
        of = TIMETABLES[body["model"]]
        tokens = body.get("max_completion_tokens") or body["max_tokens"]
        write = self._stream(answer, of, tokens) if answer.streamed else self._late(answer, of, tokens)
        task = asyncio.get_running_loop().create_task(write)
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _late(self, answer: _Answer, of: Timetable, tokens: int) -> None:
        if tokens > 1:  # else it is a probe for the length of prompts
            await asyncio.sleep(of.first_s)
        choice = {"index": 0, "message": {"role": "assistant", "content": "x " * tokens}, "finish_reason": "length"}
        before = time.monotonic()
        self._whole({"model": answer.model, "choices": [choice], "usage": _usage(answer, tokens, of)})
        self._note(answer, "body", tokens, before)

    async def _stream(self, answer: _Answer, of: Timetable, tokens: int) -> None:
        """Chunk k is due at `first_s + k · gap_s`, whatever the ones before it did, and later by the stall."""
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        self._piece(answer, "role", 0, _chunk(answer, {"role": "assistant", "content": ""}, 0, of))
        written, number, stalled = 0, 0, 0.0
        while written < tokens:
            if number == of.stall_at:
                stalled = of.stall_s
            await _until(answer.received_s + of.first_s + number * of.gap_s + stalled)
            if number == of.cut_at:
                self._transport.abort()
                return
            size = min(of.chunk_tokens[number % len(of.chunk_tokens)], tokens - written)
            name = "reasoning_content" if written < of.reasoning_tokens else "content"
            written, number = written + size, number + 1
            self._piece(answer, "token", size, _chunk(answer, {name: "x " * size}, written, of))
        if of.usage != "none":
            self._piece(answer, "usage", 0, {"model": answer.model, "choices": [], "usage": _usage(answer, tokens, of)})
        self._write(answer, "done", 0, b"data: [DONE]\n\n")
        self._transport.write(b"0\r\n\r\n")

    def _piece(self, answer: _Answer, kind: str, tokens: int, frame: dict[str, Any]) -> None:
        self._write(answer, kind, tokens, b"data: " + json.dumps(frame).encode() + b"\n\n")

    def _write(self, answer: _Answer, kind: str, tokens: int, data: bytes) -> None:
        before = time.monotonic()
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        self._note(answer, kind, tokens, before)

    def _note(self, answer: _Answer, kind: str, tokens: int, before_s: float) -> None:
        answer.pieces.append({"kind": kind, "tokens": tokens, "before_s": before_s, "after_s": time.monotonic()})

    def _whole(self, content: Any) -> None:
        body = json.dumps(content).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % len(body) + body)


async def _until(at_s: float) -> None:
    await asyncio.sleep(max(0.0, at_s - time.monotonic()))


def _prompt_tokens(body: dict[str, Any]) -> int:
    """By words, whether the content is a text or a list of parts."""
    return FIXED_TOKENS + 2 * sum(len(str(message["content"]).split()) for message in body["messages"])


def _usage(answer: _Answer, output: int, of: Timetable) -> dict[str, Any]:
    prompt = answer.prompt_tokens
    counts: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
    if of.reasoning_tokens:
        counts["completion_tokens_details"] = {"reasoning_tokens": min(of.reasoning_tokens, output)}
    return counts


def _chunk(answer: _Answer, delta: dict[str, str], written: int, of: Timetable) -> dict[str, Any]:
    frame = {"model": answer.model, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    return {**frame, "usage": _usage(answer, written, of)} if of.usage == "each" else frame


class TimedEngine:
    """The engine's process, as a test sees it."""

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self.pid = pid

    def log(self) -> list[dict[str, Any]]:
        """Every request but the probes for the length of prompts, in the order in which they came."""
        answers = httpx.get(f"{self.url}/log", timeout=30).raise_for_status().json()
        return [answer for answer in answers if answer["request_id"]]

    def stop_for(self, seconds: float, *, after_requests: int) -> None:
        """Once so many requests have come, keep the whole process from running for a while."""
        deadline = time.monotonic() + _START_S
        while len(self.log()) < after_requests:
            assert time.monotonic() < deadline, "the load does not come"
            time.sleep(0.05)
        os.kill(self.pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(self.pid, signal.SIGCONT)


@contextmanager
def timed_engine() -> Iterator[TimedEngine]:
    """The engine while the block runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.timed_engine"],
        cwd=Path(__file__).parent.parent.parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process:
        try:
            yield TimedEngine(process.stdout.readline().strip(), process.pid)
        finally:
            process.terminate()
            process.wait(_START_S)


async def _serve(port: int) -> None:
    log: list[_Answer] = []
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(log), "127.0.0.1", port)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
