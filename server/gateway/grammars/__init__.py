"""Grammars by name; `server.gateway.endpoints` says which endpoint is written in which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from server.gateway.grammars.calls import Call
from server.gateway.grammars.grammar import Grammar, StreamWatch
from server.gateway.grammars.messages import CountCall, Messages, MessagesCall
from server.gateway.grammars.openai import ChatCall, OpenAI
from server.gateway.grammars.responses import Responses
from server.gateway.grammars.usage import Answer, Usage, UsageNote

__all__ = ["GRAMMARS", "Answer", "Call", "Grammar", "StreamWatch", "Usage", "UsageNote"]

GRAMMARS: Final[Mapping[str, Grammar]] = {
    "openai": OpenAI(),
    "openai_chat": OpenAI(ChatCall),
    "responses": Responses(),
    "messages": Messages(MessagesCall),
    "messages_count": Messages(CountCall),
}
