"""OpenAI's chat and text completions, and the endpoints beside them that answer whole."""

from __future__ import annotations

from array import array
from typing import Final

import msgspec
from msgspec import UNSET, Raw

from server.errors import BadRequestError
from server.gateway.grammars.answers import Answers
from server.gateway.grammars.calls import Call, decode_call
from server.gateway.grammars.openai_form import OpenAIErrors, OpenAIUsage
from server.gateway.grammars.openai_watch import OpenAIWatch
from server.gateway.grammars.splice import append_member, replace_member
from server.gateway.grammars.usage import AnswerWithUsage, UsageNote

__all__ = ["ChatCall", "OpenAI"]

_USAGE_WANTED: Final = b'{"include_usage":true}'
_TRUE: Final = Raw(b"true")


class ChatCall(Call, frozen=True, kw_only=True):
    """A chat completion: its messages are a list, whatever stands in it."""

    messages: list[Raw]


class OpenAI(OpenAIErrors, Answers):
    """A stream is `data:` lines and `[DONE]`; its usage comes only if one asks for it."""

    def __init__(self, call: type[Call] = Call) -> None:
        """`call`: what a body must hold."""
        super().__init__(AnswerWithUsage[OpenAIUsage])
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

    def watch(
        self, *, times: array[float], strip_usage: bool, model: bytes | None, note: UsageNote | None = None
    ) -> OpenAIWatch:
        return OpenAIWatch(times=times, strip_usage=strip_usage, model=model, note=note)
