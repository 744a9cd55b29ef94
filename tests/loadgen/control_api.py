"""A control API on a real socket whose meters, ledger and metrics are known beforehand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from server.ledger.csv_lines import csv_lines
from server.ledger.record_view import record_columns, record_flat

__all__ = ["ControlApi", "control_api", "ledger_row"]

_MICROJOULES = 1_000_000


def ledger_row(id_: str, joules: float | None, **fields: Any) -> dict[str, Any]:
    """A row as the ledger's queries give it; half of the joules are prefill's. None: not final yet."""
    row: dict[str, Any] = {"received": 1_800_000_000.0, "ended": 1_800_000_001.0, "engine": "e1", **fields, "id": id_}
    uj = None if joules is None else round(joules * _MICROJOULES)
    energy = {"prefill_uj": None if uj is None else uj // 2, "decode_uj": None if uj is None else uj - uj // 2}
    rest = {"whole": True, "scope": "gpu", "method": "phase_time", "confidence": 0.9} if uj is not None else {}
    columns = ("prefill_uj", "decode_uj", *record_columns())
    return {
        **dict.fromkeys((*columns, "grams", "whole", "scope", "method", "confidence")),
        **row,
        **energy,
        **rest,
        **fields,
    }


class ControlApi(ThreadingHTTPServer):
    """Devices use `watts` since the server was made; 60 % active on engine `e1`, the rest idle."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.key: str | None = None
        self.metrics_key: str | None = None
        self.watts = 50.0
        self.rows: list[dict[str, Any]] = []
        """The ledger."""
        self.final_after = 0
        """Questions for the CSV after which joules are final."""
        self.posts: list[tuple[str, dict[str, Any]]] = []
        self.asked: list[str] = []
        self.runs_exist = True
        self.exposition: bytes | None = None
        """None: `watts` as metrics."""
        self._began = time.monotonic()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def joules(self) -> float:
        return self.watts * (time.monotonic() - self._began)

    def energy(self) -> dict[str, Any]:
        uj = round(self.joules * _MICROJOULES)
        active = uj * 6 // 10
        labels = {"engine": "e1", "model": "demo", "variant": "int8", "precision": "int8", "adapter": "none"}
        return {
            "method": "phase_time",
            "confidence": 0.9,
            "closed_until_age_s": 0.0,
            "pending_requests": 0,
            "devices": [{"device": "gpu:0", "scope": "gpu", "joules": uj / _MICROJOULES}],
            "configurations": [
                {**labels, "active_joules": active / _MICROJOULES, "prompt_tokens": 1, "output_tokens": 1}
            ],
            "microjoules": {"accounts": {"active": active, "idle": uj - active}, "devices": {"gpu:0": uj}},
        }

    def metrics(self) -> bytes:
        if self.exposition is not None:
            return self.exposition
        joules = self.joules
        labels = 'device="gpu:0",scope="gpu",engine="e1",model="demo",variant="int8",precision="int8",adapter="none"'
        return (
            "# TYPE wattgate_device_energy_joules counter\n"
            f'wattgate_device_energy_joules_total{{device="gpu:0",scope="gpu"}} {joules}\n'
            "# TYPE wattgate_energy_joules counter\n"
            f'wattgate_energy_joules_total{{{labels},account="active",phase="decode"}} {joules * 0.6}\n'
            f'wattgate_energy_joules_total{{{labels},account="idle",phase="none"}} {joules * 0.4}\n'
        ).encode()

    def csv(self) -> bytes:
        """As the real control plane writes it."""
        if self.final_after > 0:
            self.final_after -= 1
            rows = [ledger_row(row["id"], None) for row in self.rows]
        else:
            rows = self.rows
        return "".join(csv_lines(record_columns(), map(record_flat, rows))).encode()


@contextmanager
def control_api() -> Iterator[ControlApi]:
    server = ControlApi()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ControlApi

    def log_message(self, *arguments: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        path = urlsplit(self.path)
        self.server.asked.append(self.path)
        if not self._opens(path.path):
            self._answer(401, b'{"error": {"message": "no"}}')
        elif path.path == "/api/energy":
            self._answer(200, json.dumps(self.server.energy()).encode())
        elif path.path == "/metrics":
            self._answer(200, self.server.metrics())
        elif path.path == "/api/requests.csv":
            assert parse_qs(path.query)["from"]
            self._answer(200, self.server.csv())
        else:
            self._answer(404, b"{}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._opens(self.path):
            self._answer(401, b'{"error": {"message": "no"}}')
        elif not self.server.runs_exist:
            self._answer(404, b"{}")
        else:
            self.server.posts.append((self.path, body))
            self._answer(201, json.dumps({"id": 7}).encode())

    def _opens(self, path: str) -> bool:
        keys = {self.server.key, *([self.server.metrics_key] if path == "/metrics" else [])}
        return self.server.key is None or self.headers.get("Authorization", "").removeprefix("Bearer ") in keys

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
