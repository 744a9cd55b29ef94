"""An OpenAI-compatible server and a control API on real sockets, whose every answer is known beforehand."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from control_api import ledger_row

from server.ledger.csv_lines import csv_lines
from server.ledger.record_view import record_columns, record_flat

FIXED_TOKENS = 7
"""Prompt tokens = FIXED_TOKENS + 2 a word."""


class ScriptedServer(ThreadingHTTPServer):
    """Answers by the requested model's name.

    `cut` ends in the middle, `broken` says so in an error event, `busy` refuses with 429, `stuck` sends one token and
    then nothing until the server closes; every other model answers whole, one token a chunk.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, models: list[str], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.models = models
        self.api_key: str | None = None
        self.adapters: set[str] = set()
        """Names that stand for an adapter on the model `demo`."""
        self.status: dict[str, Any] = {}
        """What `GET /api/status` answers."""
        self.chats: list[dict[str, Any]] = []
        """The bodies of all streamed chats."""
        self.ledger: list[tuple[str, str]] = []
        """Model and request id of each of them that had one."""
        self.announced: list[dict[str, Any]] = []
        """What was told of runs that begin or end."""
        self.probes = 0
        self.pending_requests = 0
        self.closing = threading.Event()
        self.stuck = threading.Event()
        """A client waits for the model `stuck`."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left early is no error of the server's."""


@contextmanager
def scripted_server(*models: str) -> Iterator[ScriptedServer]:
    server = ScriptedServer(list(models))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    # Else chunks wait for acknowledgements and arrive in lumps 40 ms apart.
    disable_nagle_algorithm = True
    server: ScriptedServer

    def log_message(self, *arguments: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        if self._refused():
            return
        if self.path == "/v1/models":
            self._json(
                200, {"object": "list", "data": [{"id": id_, "max_model_len": 1024} for id_ in self.server.models]}
            )
        elif self.path == "/api/energy":
            self._json(200, self._energy())
        elif self.path == "/api/status":
            self._json(200, self.server.status)
        elif self.path == "/metrics":
            self._answer(200, "text/plain", b"wattgate_requests_in_flight 0\n")
        elif self.path.startswith("/api/requests.csv"):
            rows = (record_flat(ledger_row(id_, 1.0, engine=_engine(model))) for model, id_ in self.server.ledger)
            self._answer(200, "text/csv", "".join(csv_lines(record_columns(), rows)).encode())
        else:
            self._json(404, {"error": {"message": "no such path"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._refused():
            return
        if self.path.startswith("/api/runs"):
            self.server.announced.append(body)
            self._json(201, {"id": 7})
            return
        if not body.get("stream"):
            self.server.probes += 1
            words = len(body["messages"][0]["content"].split())
            choice = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "length"}
            usage = {"prompt_tokens": FIXED_TOKENS + 2 * words, "completion_tokens": body["max_tokens"]}
            self._json(200, {"model": body["model"], "choices": [choice], "usage": usage})
            return
        self.server.chats.append(body)
        if id_ := self.headers.get("x-request-id"):
            self.server.ledger.append((body["model"], id_))
        if body["model"] == "busy":
            self._json(429, {"error": {"message": "come back later"}})
            return
        self._stream(body)

    def _refused(self) -> bool:
        key = self.server.api_key
        if key is None or self.headers.get("Authorization") == f"Bearer {key}":
            return False
        self._json(401, {"error": {"message": "no such key"}})
        return True

    def _json(self, status: int, data: Any) -> None:
        self._answer(status, "application/json", json.dumps(data).encode())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _stream(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        model, tokens = body["model"], body["max_tokens"]
        self._event(model, {"role": "assistant", "content": ""})
        for number in range(tokens):
            self._event(model, {"content": f"{number} "}, finish="length" if number == tokens - 1 else None)
            if model == "cut" and number == tokens // 2:
                self.close_connection = True
                return
            if model == "broken" and number == tokens // 2:
                self._chunk(b'data: {"error": {"message": "the engine died", "code": 500}}\n\n')
                break
            if model == "stuck":
                self.server.stuck.set()
                self.server.closing.wait(30)
                return
        else:
            words = len(body["messages"][0]["content"].split())
            usage = {"prompt_tokens": FIXED_TOKENS + 2 * words, "completion_tokens": tokens}
            self._chunk(b"data: " + json.dumps({"model": model, "choices": [], "usage": usage}).encode() + b"\n\n")
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, model: str, delta: dict[str, Any], finish: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        self._chunk(b"data: " + json.dumps({"model": model, "choices": [choice]}).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _energy(self) -> dict[str, Any]:
        """One joule a chat of each model, 0.25 J a chat of overhead; all attributed at once."""
        chats = list(self.server.chats)
        configurations = []
        for id_ in self.server.models:
            mine = [chat for chat in chats if chat["model"] == id_]
            name, _, variant = id_.partition(":")
            configurations.append(
                {
                    "engine": _engine(id_),
                    "model": "demo" if name in self.server.adapters else name,
                    "variant": variant,
                    "adapter": name if name in self.server.adapters else "none",
                    "active_joules": float(len(mine)),
                    "prompt_tokens": 0,
                    "output_tokens": sum(chat["max_tokens"] for chat in mine),
                }
            )
        return {
            "configurations": configurations,
            "devices": [{"device": "cpu", "scope": "estimated", "joules": 1.25 * len(chats)}],
            "accounts": {"active": 1.0 * len(chats), "idle": 0.25 * len(chats)},
            "microjoules": {
                "devices": {"cpu": 1_250_000 * len(chats)},
                "accounts": {"active": 1_000_000 * len(chats), "idle": 250_000 * len(chats)},
            },
            "method": "token_share",
            "confidence": "low",
            "closed_until_age_s": 0.0,
            "pending_requests": self.server.pending_requests,
        }


def _engine(id_: str) -> str:
    """That serves this public id."""
    return f"engine-{id_.rpartition(':')[2]}"
