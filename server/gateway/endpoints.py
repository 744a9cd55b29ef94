"""The inference endpoints: paths, tasks, grammars; one table line each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from server.gateway.grammars import GRAMMARS, Grammar

__all__ = ["ENDPOINTS", "GENERATE", "Endpoint", "endpoints_for"]

GENERATE: Final = "generate"
_EMBED: Final = "embed"
_SCORE: Final = "score"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One thing that clients may ask of an engine."""

    name: str
    """As it stands in records and metrics."""
    paths: tuple[str, ...]
    """Where clients ask; the first is where the engine is asked."""
    tasks: frozenset[str]
    """Tasks of the models that can answer."""
    grammar: Grammar
    streams: bool
    needs: tuple[str, ...]
    """Members that a body has, for the documentation; the engine judges all but those that the grammar asks for."""
    summary: str


ENDPOINTS: Final = (
    Endpoint(
        name="chat",
        paths=("/v1/chat/completions",),
        tasks=frozenset({GENERATE}),
        grammar=GRAMMARS["openai_chat"],
        streams=True,
        needs=("model", "messages"),
        summary="Answer a conversation, whole or streamed",
    ),
    Endpoint(
        name="completions",
        paths=("/v1/completions",),
        tasks=frozenset({GENERATE}),
        grammar=GRAMMARS["openai"],
        streams=True,
        needs=("model", "prompt"),
        summary="Continue a text, whole or streamed",
    ),
    Endpoint(
        name="responses",
        paths=("/v1/responses",),
        tasks=frozenset({GENERATE}),
        grammar=GRAMMARS["responses"],
        streams=True,
        needs=("model", "input"),
        summary="Answer a conversation in the form of OpenAI's Responses API, stateless, whole or streamed",
    ),
    Endpoint(
        name="messages",
        paths=("/v1/messages",),
        tasks=frozenset({GENERATE}),
        grammar=GRAMMARS["messages"],
        streams=True,
        needs=("model", "messages", "max_tokens"),
        summary="Answer a conversation in the form of Anthropic's Messages API, whole or streamed",
    ),
    Endpoint(
        name="count_tokens",
        paths=("/v1/messages/count_tokens",),
        tasks=frozenset({GENERATE}),
        grammar=GRAMMARS["messages_count"],
        streams=False,
        needs=("model", "messages"),
        summary="Count the tokens that a conversation of the Messages API would take",
    ),
    Endpoint(
        name="embeddings",
        paths=("/v1/embeddings",),
        tasks=frozenset({_EMBED}),
        grammar=GRAMMARS["openai"],
        streams=False,
        needs=("model", "input"),
        summary="Turn texts into vectors",
    ),
    Endpoint(
        name="score",
        paths=("/v1/score", "/score"),
        tasks=frozenset({_SCORE}),
        grammar=GRAMMARS["openai"],
        streams=False,
        needs=("model", "text_1", "text_2"),
        summary="Score pairs of texts",
    ),
    Endpoint(
        name="rerank",
        paths=("/v1/rerank", "/rerank"),
        tasks=frozenset({_SCORE}),
        grammar=GRAMMARS["openai"],
        streams=False,
        needs=("model", "query", "documents"),
        summary="Order documents by how well they answer a query",
    ),
    Endpoint(
        name="tokenize",
        paths=("/tokenize",),
        tasks=frozenset({GENERATE, _EMBED, _SCORE}),
        grammar=GRAMMARS["openai"],
        streams=False,
        needs=("model", "prompt"),
        summary="Turn a text or a conversation into token ids",
    ),
    Endpoint(
        name="detokenize",
        paths=("/detokenize",),
        tasks=frozenset({GENERATE, _EMBED, _SCORE}),
        grammar=GRAMMARS["openai"],
        streams=False,
        needs=("model", "tokens"),
        summary="Turn token ids into text",
    ),
)


def endpoints_for(task: str) -> tuple[str, ...]:
    """The paths at which a model of this task answers."""
    return tuple(endpoint.paths[0] for endpoint in ENDPOINTS if task in endpoint.tasks)
