"""What an engine's error answer says, in whatever form it says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

__all__ = ["NO_SUCH_ENDPOINT", "Said", "said_by"]

NO_SUCH_ENDPOINT: Final = "endpoint_not_supported"
_BARE_404: Final = "not found"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An error answer as far as it could be read."""

    message: str
    """Fit for a client."""
    code: str | None = None
    error: Mapping[str, Any] | None = None
    """The answer's error object, if it has one with a message that is worth keeping."""
    type: Any = None
    """What the answer itself says that it is."""


def said_by(body: bytes, status: int, engine: str) -> Said:
    """Read an error answer; never raises."""
    try:
        answer: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        answer = {}
    error = answer.get("error")
    known = error if isinstance(error, dict) and "message" in error else None
    message = _message(answer, known)
    if status == 404 and message.strip(" .").lower() in {"", _BARE_404}:
        text = f"The engine {engine} has no such endpoint (404 Not Found); ask it at another, or ask another model."
        return Said(message=text, code=NO_SUCH_ENDPOINT)
    message = message or f"The engine {engine} answered {status} without saying why; see its log."
    return Said(message=message, error=known, type=answer.get("type"))


def _message(answer: Mapping[str, Any], error: Mapping[str, Any] | None) -> str:
    """An error object's `message`, old vLLM's `message`, FastAPI's `detail`, or a bare `error`; empty if none."""
    for said in (error and error["message"], answer.get("message"), answer.get("detail"), answer.get("error")):
        if said:
            return said if isinstance(said, str) else msgspec.json.encode(said).decode()
    return ""
