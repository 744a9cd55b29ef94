"""Errors, usage and a stream's frames as OpenAI writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from server.errors import RequestError
from server.gateway.grammars.engine_error import said_by
from server.gateway.grammars.usage import Usage

__all__ = ["OpenAIErrors", "OpenAIFrame", "OpenAIUsage", "error_event"]

_TOKEN_FIELDS: Final = ("content", "reasoning_content", "reasoning", "tool_calls", "function_call", "refusal", "audio")

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 503: "overloaded_error"}

_ERROR_SCHEMA: Final[Mapping[str, Any]] = {
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


class _Choice(msgspec.Struct):
    delta: dict[str, Any] | None = None
    text: str | None = None
    finish_reason: str | None = None

    def has_token(self) -> bool:
        if self.text:
            return True
        delta = self.delta
        return delta is not None and any(delta.get(field) for field in _TOKEN_FIELDS)


class OpenAIFrame(msgspec.Struct):
    """One event of a stream."""

    choices: list[_Choice] = []
    usage: OpenAIUsage | None = None
    error: Any = None
    model: Any = None


class OpenAIErrors:
    """Errors of all OpenAI's grammars: `{"error": {"message", "type", "param", "code"}}`."""

    error_schema = _ERROR_SCHEMA

    def error_body(self, error: RequestError) -> bytes:
        return msgspec.json.encode(error.body())

    def engine_error(self, body: bytes, status: int, engine: str) -> bytes:
        said = said_by(body, status, engine)
        if said.error is not None:
            return body
        kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "upstream_error")
        return msgspec.json.encode({"error": {"message": said.message, "type": kind, "param": None, "code": said.code}})


def error_event(error: RequestError) -> bytes:
    """The last event of a stream that could not be finished."""
    return b"data: " + msgspec.json.encode(error.body()) + b"\n\n"
