"""One request as the client felt it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, Final

__all__ = ["EXACT", "SPREAD", "Record"]

EXACT: Final = "one_token_a_chunk"
"""Gaps between chunks are gaps between tokens."""
_COUNTED: Final = "usage_a_chunk"
"""The server said how many tokens each chunk held."""
SPREAD: Final = "spread"
"""Only the answer's total is known: every gap is divided by the mean number of tokens of a chunk."""

_TUPLES: Final = ("token_s", "chunk_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Times are seconds of CLOCK_MONOTONIC since the run's start; None is unknown or never reached."""

    index: int
    """The request's number in the run; decides its prompt and its model."""
    request_id: str = ""
    """Sent as `x-request-id`; the gateway accounts energy under it."""
    endpoint: str = "/v1/chat/completions"
    streamed: bool = True
    """An answer that comes in one piece has no first token and no gaps."""
    model: str
    """The id that was asked for."""
    served_by: str | None
    """The id that the answer names."""
    warm_up: bool
    """Sent during the warm-up: excluded from every figure but its own count."""
    scheduled_s: float
    """When it should have been sent; in closed loop when it was."""
    sent_s: float
    token_s: tuple[float, ...]
    """Arrival of each chunk that carried text, reasoning or a tool call; a role-only frame does not."""
    chunk_tokens: tuple[int, ...] | None = None
    """Tokens of each of these chunks, where the server counts on in every chunk."""
    ended_s: float
    prompt_tokens: int | None
    prompt_tokens_wanted: int | None = None
    """What the text was made for; None where the text was given."""
    cached_tokens: int | None
    output_tokens: int | None
    """By the server's usage; None where it gives none: chunks are never counted instead."""
    reasoning_tokens: int | None = None
    """Of the output tokens."""
    finish_reason: str | None
    error: str | None
    """A kind: `http_429`, `truncated`, …; None if the answer is whole."""
    message: str | None
    """What the server or the connection said of the error."""
    receive_lag_s: float | None = None
    """Longest time from the kernel's receipt to our read; None where the kernel gives no times."""
    reads: int = 0
    merged_reads: int = 0
    """Reads that held several events: the times between those are unknown."""

    @property
    def ok(self) -> bool:
        return self.error is None

    @property
    def time_to_first_token_s(self) -> float | None:
        """From the scheduled time: a generator that is late, or a queue, must not hide in it."""
        return self.token_s[0] - self.scheduled_s if self.token_s else None

    @property
    def time_to_first_token_from_sent_s(self) -> float | None:
        return self.token_s[0] - self.sent_s if self.token_s else None

    @property
    def end_to_end_s(self) -> float:
        return self.ended_s - self.scheduled_s

    @property
    def end_to_end_from_sent_s(self) -> float:
        return self.ended_s - self.sent_s

    @property
    def token_basis(self) -> str | None:
        """How it is known which chunk held how many tokens; None: it is not."""
        if self.output_tokens is None or not self.token_s:
            return None
        if self.chunk_tokens is not None:
            return EXACT if set(self.chunk_tokens) == {1} else _COUNTED
        if self.output_tokens < len(self.token_s):
            return None
        return EXACT if self.output_tokens == len(self.token_s) else SPREAD

    @property
    def one_token_a_chunk(self) -> bool:
        """The gaps between chunks are the gaps between tokens."""
        return self.token_basis == EXACT

    @property
    def inter_chunk_latencies_s(self) -> list[float]:
        """What a reader waits for, whatever the chunks hold."""
        return [later - earlier for earlier, later in pairwise(self.token_s)]

    @property
    def inter_token_latencies_s(self) -> list[float]:
        """Each gap between chunks by the tokens of the chunk that ends it; one value a gap.

        Not one a token: a value repeated k times would look like k observations. Where only the total is known, n
        tokens in c chunks, every gap is divided by (n - 1)/(c - 1). Empty where the tokens are unknown.
        """
        gaps, basis = self.inter_chunk_latencies_s, self.token_basis
        if basis is None or not gaps:
            return []
        if basis == _COUNTED and self.chunk_tokens is not None:
            return [gap / tokens for gap, tokens in zip(gaps, self.chunk_tokens[1:], strict=True)]
        if basis == SPREAD and self.output_tokens is not None:
            return [gap * len(gaps) / (self.output_tokens - 1) for gap in gaps]
        return gaps

    @property
    def time_per_output_token_s(self) -> float | None:
        """(last token - first token)/(n - 1), one value a request."""
        if not self.token_s or self.output_tokens is None or self.output_tokens < 2:
            return None
        return (self.token_s[-1] - self.token_s[0]) / (self.output_tokens - 1)

    def tokens_at(self) -> list[tuple[float, float]]:
        """(arrival, output tokens) of everything that came; shares of the total where chunks are not counted."""
        if self.output_tokens is None:
            return []
        if not self.token_s:
            return [] if self.streamed else [(self.ended_s, float(self.output_tokens))]
        if self.chunk_tokens is not None and sum(self.chunk_tokens) == self.output_tokens:
            return [(at, float(tokens)) for at, tokens in zip(self.token_s, self.chunk_tokens, strict=True)]
        return [(at, self.output_tokens / len(self.token_s)) for at in self.token_s]

    def output_tokens_between(self, start_s: float, end_s: float) -> float:
        """Tokens that arrived in [start, end): the steady state's share of a request that began or ended outside."""
        return sum(tokens for at, tokens in self.tokens_at() if start_s <= at < end_s)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """What `to_json` gave, after a way over the wire (where a tuple becomes a list)."""
        values = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        tuples = {name: tuple(values[name]) for name in _TUPLES if values.get(name) is not None}
        return cls(**{**values, **tuples})
