"""What Locust is told of our requests."""

from __future__ import annotations

from typing import Any

from loadgen._errors import LoadError
from loadgen._record import Record

__all__ = ["fire_request"]


def fire_request(environment: Any, record: Record) -> None:
    """One row of Locust's own statistics a request: its page, its CSV files and its exit status come from them."""
    environment.events.request.fire(
        request_type="POST",
        name=record.model,
        response_time=record.end_to_end_s * 1000,
        response_length=record.output_tokens or 0,
        exception=None if record.ok else LoadError(f"{record.error}: {record.message}"),
        context={},
    )
