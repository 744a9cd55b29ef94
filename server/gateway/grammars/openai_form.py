"""Errors and usage as OpenAI writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from server.errors import RequestError
from server.gateway.grammars.engine_error import said_by
from server.gateway.grammars.usage import Usage

__all__ = ["ERROR_SCHEMA", "OpenAIUsage", "engine_error", "error_body", "error_event"]

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 503: "overloaded_error"}

ERROR_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


class _PromptDetails(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class OpenAIUsage(msgspec.Struct, frozen=True):
    """`usage` of chat, completions, embeddings and scores."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None

    def counts(self) -> Usage:
        """The same in the gateway's terms."""
        details = self.prompt_tokens_details
        return Usage(self.prompt_tokens, self.completion_tokens, details.cached_tokens if details else None)


def error_body(error: RequestError) -> bytes:
    """`{"error": {"message", "type", "param", "code"}}`."""
    return msgspec.json.encode(error.body())


def error_event(error: RequestError) -> bytes:
    """The last event of a stream that could not be finished."""
    return b"data: " + error_body(error) + b"\n\n"


def engine_error(body: bytes, status: int, engine: str) -> bytes:
    """`body` as it is if it is an OpenAI error, else wrapped into one that keeps its message."""
    said = said_by(body, status, engine)
    if said.error is not None:
        return body
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "upstream_error")
    return msgspec.json.encode({"error": {"message": said.message, "type": kind, "param": None, "code": said.code}})
