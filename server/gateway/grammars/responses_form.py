"""Usage and a stream's events as OpenAI's Responses API writes them."""

from __future__ import annotations

from typing import Any

import msgspec

from server.gateway.grammars.usage import Usage

__all__ = ["Numbered", "ResponsesEvent", "ResponsesUsage"]


class _InputDetails(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class ResponsesUsage(msgspec.Struct, frozen=True):
    """A response's `usage`."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None

    def counts(self) -> Usage:
        """The same in the gateway's terms."""
        details = self.input_tokens_details
        return Usage(self.input_tokens, self.output_tokens, details.cached_tokens if details else None)


class _Response(msgspec.Struct):
    usage: ResponsesUsage | None = None


class ResponsesEvent(msgspec.Struct):
    """One event of a stream."""

    type: str = ""
    delta: Any = None
    response: _Response | None = None
    error: Any = None

    def is_token(self) -> bool:
        return self.type.startswith("response.") and self.type.endswith(".delta") and bool(self.delta)

    def is_failure(self) -> bool:
        return self.type in {"error", "response.failed"} or self.error is not None


class Numbered(msgspec.Struct):
    """Any event: each has a number."""

    sequence_number: int = -1
