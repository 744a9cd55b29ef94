"""Anthropic's Messages API."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from server.errors import RequestError
from server.gateway.grammars import messages_form
from server.gateway.grammars.answers import Answers
from server.gateway.grammars.calls import Call, decode_call
from server.gateway.grammars.messages_watch import MessagesWatch
from server.gateway.grammars.splice import replace_member
from server.gateway.grammars.usage import AnswerWithUsage, UsageNote

__all__ = ["CountCall", "Messages", "MessagesCall"]


class CountCall(Call, frozen=True, kw_only=True):
    """A prompt whose tokens are to be counted."""

    messages: list[Raw]


class MessagesCall(CountCall, frozen=True, kw_only=True):
    """A conversation to be answered; the engine judges the bound."""

    max_tokens: Raw


class Messages(Answers):
    """Usage is always in the stream: there is nothing to ask for and nothing to strip."""

    error_schema: Mapping[str, Any] = messages_form.ERROR_SCHEMA

    def __init__(self, call: type[Call]) -> None:
        """`call`: what a body must hold."""
        super().__init__(AnswerWithUsage[messages_form.MessagesUsage])
        self._decoder = msgspec.json.Decoder(call)

    def parse(self, body: bytes) -> Call:
        return decode_call(self._decoder, body)

    def asks_for_usage(self, call: Call) -> bool:  # noqa: ARG002
        return True

    def upstream_body(self, body: bytes, call: Call, *, upstream_model: str, add_usage: bool) -> bytes:  # noqa: ARG002
        if call.model == upstream_model:
            return body
        return replace_member(body, "model", msgspec.json.encode(upstream_model), is_text=True)

    def watch(
        self,
        *,
        times: array[float],
        strip_usage: bool,  # noqa: ARG002
        model: bytes | None,
        note: UsageNote | None = None,
    ) -> MessagesWatch:
        return MessagesWatch(times=times, model=model, note=note)

    def error_body(self, error: RequestError) -> bytes:
        return messages_form.error_body(error)

    def engine_error(self, body: bytes, status: int, engine: str) -> bytes:
        return messages_form.engine_error(body, status, engine)
