"""The request log: one JSON line a request, never a prompt nor a key."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from server.clock import Clock
from server.wire import RequestRecord

__all__ = ["RequestLog", "line_of"]

_MAX_TEXT = 200
"""Clients choose a request's id and the model they ask for; a log line stays a line."""


class RequestLog:
    """Appends to `path`; at `max_bytes` the file becomes `path.1`, and so on up to `path.<backups>`.

    `write` blocks for one write to the page cache. Where the file system fails (a full disk), lines are lost and
    counted in `lines_lost`: a log never stops the service.
    """

    def __init__(self, path: Path, clock: Clock, *, max_bytes: int = 64 * 2**20, backups: int = 3) -> None:
        self._path = path
        self._clock = clock
        self._max_bytes = max_bytes
        self._backups = backups
        self._encode = msgspec.json.Encoder().encode
        self.lines_lost = 0

    def write(self, records: Sequence[RequestRecord]) -> None:
        """Append a line for each record."""
        if not records:
            return
        epoch = self._clock.wall() - self._clock.monotonic()
        text = b"".join(self._encode(line_of(record, epoch)) + b"\n" for record in records)
        try:
            self._rotate(len(text))
            with self._path.open("ab") as file:
                file.write(text)
        except OSError:
            self.lines_lost += len(records)

    def _rotate(self, coming: int) -> None:
        if not self._path.exists() or self._path.stat().st_size + coming <= self._max_bytes:
            return
        for number in range(self._backups, 1, -1):
            older = self._numbered(number - 1)
            if older.exists():
                older.replace(self._numbered(number))
        if self._backups:
            self._path.replace(self._numbered(1))
        else:
            self._path.unlink()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def line_of(record: RequestRecord, epoch: float) -> dict[str, Any]:
    """What the log says of a request; `epoch` is the wall time at monotonic 0. Unknown is null."""
    return {
        "time": datetime.fromtimestamp(epoch + record.ended_at, UTC).isoformat(timespec="milliseconds"),
        "id": record.id[:_MAX_TEXT],
        "endpoint": record.endpoint,
        "tenant": record.tenant,
        "requested_model": record.requested_model[:_MAX_TEXT] if record.requested_model else None,
        "model": record.model,
        "variant": record.variant,
        "precision": record.precision,
        "adapter": record.adapter,
        "engine": record.engine,
        "outcome": record.outcome,
        "status": record.status,
        "streamed": record.streamed,
        "cancelled_when": record.cancelled_when,
        "retries": record.retries,
        "queue_s": round(record.queue_s, 6),
        "time_to_first_token_s": _since(record.received_at, record.first_token_at),
        "duration_s": _since(record.received_at, record.ended_at),
        "prompt_tokens": record.prompt_tokens,
        "cached_tokens": record.cached_tokens,
        "output_tokens": record.output_tokens,
    }


def _since(start: float, end: float | None) -> float | None:
    return None if end is None else round(end - start, 6)
