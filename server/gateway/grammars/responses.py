"""OpenAI's Responses API, without its memory: every request brings its whole conversation."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from server.errors import BadRequestError
from server.gateway.grammars.answers import Answers
from server.gateway.grammars.calls import Call, decode_call
from server.gateway.grammars.openai_form import OpenAIErrors
from server.gateway.grammars.responses_form import ResponsesUsage
from server.gateway.grammars.responses_watch import ResponsesWatch
from server.gateway.grammars.splice import append_member, replace_member
from server.gateway.grammars.usage import AnswerWithUsage, UsageNote

__all__ = ["Responses"]

_INSTEAD: Final[Mapping[str, str]] = {
    "store": "send `store: false`, or leave it out",
    "background": "leave it out and read the answer as a stream",
    "previous_response_id": "send the earlier turns in `input`",
    "conversation": "send the earlier turns in `input`",
}


class _ResponsesCall(Call, frozen=True, kw_only=True):
    store: bool | UnsetType | None = UNSET
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None


_call = msgspec.json.Decoder(_ResponsesCall)


class Responses(OpenAIErrors, Answers):
    """Usage is always in a stream's last event: there is nothing to ask for and nothing to strip."""

    def __init__(self) -> None:
        super().__init__(AnswerWithUsage[ResponsesUsage])

    def parse(self, body: bytes) -> Call:
        call = decode_call(_call, body)
        for name, instead in _INSTEAD.items():
            if getattr(call, name):
                raise BadRequestError(
                    f"`{name}` needs a server that keeps responses; this one is stateless. Instead, {instead}.",
                    param=name,
                )
        return call

    def asks_for_usage(self, call: Call) -> bool:  # noqa: ARG002
        return True

    def upstream_body(self, body: bytes, call: Call, *, upstream_model: str, add_usage: bool) -> bytes:  # noqa: ARG002
        if call.model != upstream_model:
            body = replace_member(body, "model", msgspec.json.encode(upstream_model), is_text=True)
        store = call.store if isinstance(call, _ResponsesCall) else UNSET
        if store is UNSET:
            return append_member(body, "store", b"false")
        return replace_member(body, "store", b"false") if store is None else body

    def watch(
        self,
        *,
        times: array[float],
        strip_usage: bool,  # noqa: ARG002
        model: bytes | None,
        note: UsageNote | None = None,
    ) -> ResponsesWatch:
        return ResponsesWatch(times=times, model=model, note=note)
