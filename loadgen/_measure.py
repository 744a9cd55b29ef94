"""From an answer, streamed or whole, to the record of its request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from loadgen._record import Record
from loadgen._stream import EMPTY, ERROR_EVENT, MALFORMED, Delta, Usage, error_message, excerpt

if TYPE_CHECKING:
    from loadgen._answer import Answer
    from loadgen._run import Job

__all__ = ["CONNECT", "TIMEOUT", "http_kind", "record_of"]

CONNECT: Final = "connect"
"""No answer at all: refused, reset or closed before the headers."""
TIMEOUT: Final = "timeout"
"""No answer, or silence within it, for longer than the client waits."""


class _WholeChoice(msgspec.Struct):
    message: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Whole(msgspec.Struct):
    model: str | None = None
    choices: list[_WholeChoice] | None = None
    data: list[Any] | None = None
    """Embeddings."""
    usage: Usage | None = None
    error: Any = None

    @property
    def finish_reason(self) -> str | None:
        return next((choice.finish_reason for choice in self.choices or ()), None)

    @property
    def says_something(self) -> bool:
        if self.data:
            return True
        return any(choice.text or (choice.message and choice.message.says_something) for choice in self.choices or ())


_decode_whole: Final = msgspec.json.Decoder(_Whole).decode


def http_kind(status: int) -> str:
    """The kind of failure of an answer that is not 200."""
    return f"http_{status}"


def record_of(job: Job, answer: Answer, *, open_loop: bool) -> Record:
    """What a request was like; asked once nothing more of its answer comes."""
    stream = answer.stream
    failure = answer.failure or (stream.failure() if stream else None)
    whole = _Whole()
    if failure is None and stream is None:
        whole, failure = _read_whole(answer.body, job.ask.endpoint)
    usage = (stream.usage if stream else whole.usage) or Usage()
    return Record(
        index=job.index,
        request_id=job.request_id,
        endpoint=job.ask.endpoint,
        streamed=stream is not None,
        model=job.ask.model,
        served_by=stream.served_by if stream else whole.model,
        warm_up=job.warm_up,
        # In closed loop a request is due when there is a client for it.
        scheduled_s=job.scheduled_s if open_loop else answer.sent_s,
        sent_s=answer.sent_s,
        token_s=tuple(stream.token_at) if stream else (),
        chunk_tokens=stream.chunk_tokens if stream else None,
        ended_s=answer.ended_s if stream is None or stream.done_at is None else stream.done_at,
        prompt_tokens=usage.prompt_tokens,
        prompt_tokens_wanted=job.ask.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.completion_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        finish_reason=stream.finish_reason if stream else whole.finish_reason,
        error=failure[0] if failure else None,
        message=failure[1] if failure else None,
        receive_lag_s=answer.receive_lag_s,
        reads=answer.reads,
        merged_reads=answer.merged_reads,
    )


def _read_whole(body: bytes, endpoint: str) -> tuple[_Whole, tuple[str, str] | None]:
    """The body of an answer that is not streamed, and what is wrong with it."""
    try:
        whole = _decode_whole(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        return _Whole(), (MALFORMED, f"The answer is none of {endpoint} ({exc}): {excerpt(body)}")
    if whole.error:
        return whole, (ERROR_EVENT, error_message(body))
    if not whole.says_something:
        return whole, (EMPTY, "The answer is whole but holds nothing.")
    return whole, None
