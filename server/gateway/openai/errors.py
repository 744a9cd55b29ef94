"""An engine's error answers, in OpenAI's form."""

from __future__ import annotations

from typing import Any

import msgspec

from server.errors import RequestError

__all__ = ["error_event", "openai_error"]

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 503: "overloaded_error"}


def openai_error(body: bytes, status: int, engine: str) -> bytes:
    """`body` as it is if it is an OpenAI error, else wrapped into one that keeps its message."""
    try:
        answer: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        answer = None
    if isinstance(answer, dict) and isinstance(answer.get("error"), dict) and "message" in answer["error"]:
        return body
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "upstream_error")
    message = _message(answer) or f"The engine {engine} answered {status} without saying why; see its log."
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": None}})


def error_event(error: RequestError) -> bytes:
    """The last event of a stream that could not be finished."""
    return b"data: " + msgspec.json.encode(error.body()) + b"\n\n"


def _message(answer: Any) -> str | None:
    """What a JSON answer that is no OpenAI error says: old vLLM's `message`, FastAPI's `detail`, a bare `error`."""
    if not isinstance(answer, dict):
        return None
    for key in ("message", "detail", "error"):
        said = answer.get(key)
        if said:
            return said if isinstance(said, str) else msgspec.json.encode(said).decode()
    return None
