"""OpenAI's chat and text completions, and the endpoints beside them that answer whole."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw

from server.errors import BadRequestError, RequestError
from server.gateway.grammars import openai_form
from server.gateway.grammars.calls import Call, decode_call
from server.gateway.grammars.openai_watch import OpenAIWatch
from server.gateway.grammars.splice import append_member, replace_member, replace_model
from server.gateway.grammars.usage import Answer, WithUsage, decode_answer

__all__ = ["ChatCall", "OpenAI"]

_USAGE_WANTED: Final = b'{"include_usage":true}'
_TRUE: Final = Raw(b"true")


class ChatCall(Call, frozen=True, kw_only=True):
    """A chat completion: its messages are a list, whatever stands in it."""

    messages: list[Raw]


class _Answer(msgspec.Struct):
    usage: openai_form.OpenAIUsage | None = None


_answer: msgspec.json.Decoder[WithUsage] = msgspec.json.Decoder(_Answer)


class OpenAI:
    """A stream is `data:` lines and `[DONE]`; its usage comes only if one asks for it."""

    error_schema: Mapping[str, Any] = openai_form.ERROR_SCHEMA

    def __init__(self, call: type[Call] = Call) -> None:
        """`call`: what a body must hold."""
        self._decoder = msgspec.json.Decoder(call)

    def parse(self, body: bytes) -> Call:
        return decode_call(self._decoder, body)

    def asks_for_usage(self, call: Call) -> bool:
        options = call.stream_options
        if not options:
            return False
        wanted = bytes(options.get("include_usage", b"null"))
        if wanted not in {b"true", b"false", b"null"}:
            raise BadRequestError(
                "`stream_options.include_usage` must be true or false.", param="stream_options.include_usage"
            )
        return wanted == b"true"

    def upstream_body(self, body: bytes, call: Call, *, upstream_model: str, add_usage: bool) -> bytes:
        if call.model != upstream_model:
            body = replace_member(body, "model", msgspec.json.encode(upstream_model), is_text=True)
        if not add_usage:
            return body
        if call.stream_options is UNSET:
            return append_member(body, "stream_options", _USAGE_WANTED)
        options = dict(call.stream_options) if isinstance(call.stream_options, dict) else {}
        # Without `include_usage` an engine ignores this one; with it every frame would carry usage nobody asked for.
        options.pop("continuous_usage_stats", None)
        options["include_usage"] = _TRUE
        return replace_member(body, "stream_options", msgspec.json.encode(options))

    def watch(self, *, times: array[float], strip_usage: bool, model: bytes | None) -> OpenAIWatch:
        return OpenAIWatch(times=times, strip_usage=strip_usage, model=model)

    def read_answer(self, body: bytes) -> Answer | None:
        return decode_answer(_answer, body)

    def rewrite_model(self, body: bytes, model: bytes) -> bytes:
        return replace_model(body, model)

    def error_body(self, error: RequestError) -> bytes:
        return openai_form.error_body(error)

    def engine_error(self, body: bytes, status: int, engine: str) -> bytes:
        return openai_form.engine_error(body, status, engine)
