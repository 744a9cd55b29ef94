"""Errors, usage and a stream's events as Anthropic writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from server.errors import RequestError
from server.gateway.grammars.engine_error import said_by
from server.gateway.grammars.usage import Usage

__all__ = ["ERROR_SCHEMA", "MessagesEvent", "MessagesUsage", "engine_error", "error_body"]

_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_TOKEN_FIELDS: Final = ("text", "thinking", "partial_json")
_OF_THE_CLIENT, _OF_THE_SERVER = "invalid_request_error", "api_error"
_ALL: Final = frozenset({*_TYPES.values(), _OF_THE_CLIENT, _OF_THE_SERVER})

ERROR_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "properties": {"type": {"enum": sorted(_ALL)}, "message": {"type": "string"}},
        },
    },
}


class MessagesUsage(msgspec.Struct, frozen=True):
    """`usage` of a message, or of a part of one; `input_tokens` are those that no cache had to do with."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None

    def updated(self, later: MessagesUsage) -> MessagesUsage:
        """What is known after `later` came too."""
        known = {name: value for name, value in msgspec.structs.asdict(later).items() if value is not None}
        return msgspec.structs.replace(self, **known)

    def counts(self) -> Usage:
        """The same in the gateway's terms."""
        prompt = self.input_tokens
        if prompt is not None:
            prompt += (self.cache_read_input_tokens or 0) + (self.cache_creation_input_tokens or 0)
        return Usage(prompt, self.output_tokens, self.cache_read_input_tokens)


class _Message(msgspec.Struct):
    usage: MessagesUsage | None = None


class MessagesEvent(msgspec.Struct):
    """One event of a stream."""

    type: str = ""
    message: _Message | None = None
    delta: dict[str, Any] | None = None
    usage: MessagesUsage | None = None

    def is_token(self) -> bool:
        delta = self.delta
        return self.type == "content_block_delta" and delta is not None and any(map(delta.get, _TOKEN_FIELDS))


def error_body(error: RequestError) -> bytes:
    """`{"type": "error", "error": {"type", "message"}}`."""
    return _written(error.status, str(error))


def engine_error(body: bytes, status: int, engine: str) -> bytes:
    """`body` as it is if it is an Anthropic error, else wrapped into one that keeps its message."""
    said = said_by(body, status, engine)
    if said.type == "error" and said.error is not None and said.error.get("type") in _ALL:
        return body
    return _written(status, said.message)


def _written(status: int, message: str) -> bytes:
    kind = _TYPES.get(status, _OF_THE_CLIENT if status < 500 else _OF_THE_SERVER)
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})
