"""One request as the client felt it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

__all__ = ["Record"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Times are seconds of CLOCK_MONOTONIC since the run's start; None is unknown or never reached."""

    index: int
    """The request's number in the run; decides its prompt and its model."""
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
    ended_s: float
    prompt_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    finish_reason: str | None
    error: str | None
    """A kind: `http_429`, `truncated`, …; None if the answer is whole."""
    message: str | None
    """What the server or the connection said of the error."""

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
    def one_token_a_chunk(self) -> bool:
        """The gaps between chunks are the gaps between tokens."""
        return self.output_tokens == len(self.token_s)

    @property
    def inter_token_latencies_s(self) -> list[float]:
        """Each gap between chunks, spread over its tokens where a chunk carries several.

        With n tokens in c chunks every gap is divided by (n - 1)/(c - 1): usage does not say which chunk held how many.
        """
        gaps = [later - earlier for earlier, later in zip(self.token_s, self.token_s[1:], strict=False)]
        if self.output_tokens is None or self.output_tokens <= len(self.token_s) or not gaps:
            return gaps
        tokens_a_gap = (self.output_tokens - 1) / len(gaps)
        return [gap / tokens_a_gap for gap in gaps]

    @property
    def time_per_output_token_s(self) -> float | None:
        """(last token - first token)/(n - 1), one value a request."""
        if not self.token_s or self.output_tokens is None or self.output_tokens < 2:
            return None
        return (self.token_s[-1] - self.token_s[0]) / (self.output_tokens - 1)

    def output_tokens_between(self, start_s: float, end_s: float) -> float:
        """Tokens that arrived in [start, end): the steady state's share of a request that began or ended outside."""
        if not self.token_s or self.output_tokens is None:
            return 0.0
        inside = sum(1 for at in self.token_s if start_s <= at < end_s)
        return self.output_tokens * inside / len(self.token_s)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """What `to_json` gave, after a way over the wire (where a tuple becomes a list)."""
        values = {field.name: data[field.name] for field in fields(cls)}
        return cls(**{**values, "token_s": tuple(values["token_s"])})
