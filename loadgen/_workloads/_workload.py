"""The contract of a workload: what each request of a run asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from loadgen._arrivals import Times

if TYPE_CHECKING:
    from loadgen._gateway import Prepared
    from loadgen._plan import Plan

__all__ = ["CHAT", "COMPLETIONS", "EMBEDDINGS", "Ask", "Endpoint", "Probes", "Workload", "WorkloadFactory"]

Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]
CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
EMBEDDINGS: Final = "/v1/embeddings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request, ready to be sent."""

    model: str
    endpoint: Endpoint
    body: Mapping[str, Any]
    """The JSON body, `model` and `stream` included."""
    prompt_tokens: int | None
    """Wanted; None where the text was given (a JSONL file), not made to a length."""
    output_tokens: int | None
    """Asked for (`max_tokens`); None where the answer has no tokens (embeddings) or the file gives no bound."""
    conversation: int | None = None
    """Requests with the same number share a growing prefix; None: the request stands alone."""

    @property
    def streamed(self) -> bool:
        return bool(self.body.get("stream"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """What a workload must know of the server's tokens."""

    endpoint: Endpoint
    several_messages: bool = False
    """It sends more than one message in a prompt."""


class Workload(Protocol):
    """Decides the model, the text and the lengths of every request of a run."""

    @property
    def probes(self) -> Probes | None:
        """How its prompts are calibrated; None: its texts are given, not made to a length."""

    @property
    def times_s(self) -> Times | None:
        """When a trace file says that its requests came, from its first on; None for every other workload."""

    def describe(self) -> dict[str, Any]:
        """What a report says of it, as plain JSON: options, scale, source."""

    def ask(self, index: int) -> Ask:
        """Request `index` ≥ 0; the same for the same seed, salt and index, whichever process asks, in any order.

        Another salt gives other texts of the same lengths. Quick (≤ 1 ms for 1,000 tokens), never waits.
        """


WorkloadFactory = Callable[["Plan", "Prepared"], Workload]
"""Raises `LoadError` with one sentence (and the line of a file) if the plan cannot be followed.

`Prepared` may still lack its calibrations: what they are is decided by `probes`, and only `ask` needs them.
"""
