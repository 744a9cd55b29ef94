"""Sends requests over Locust's client and measures the answers."""

from __future__ import annotations

import json
from typing import Any, Final

from gevent import GreenletExit
from gevent.event import Event
from gevent.pool import Group
from geventhttpclient.response import HTTPParseError

from loadgen._gateway import chat_body, headers
from loadgen._record import Record
from loadgen._run import Job, Run
from loadgen._stream import ChatStream

__all__ = ["CONNECT", "TIMEOUT", "dispatch", "send"]

CONNECT: Final = "connect"
"""No answer at all: refused, reset or closed before the headers."""
TIMEOUT: Final = "timeout"

_PATH: Final = "/v1/chat/completions"
_LINE_END: Final = b"\n"


def send(session: Any, run: Run, job: Job) -> None:
    """One request, start to end; adds one record to `run` and one row to Locust's statistics.

    `session` is a `FastHttpSession`. A request that the end of the run cuts off is counted as unfinished, not failed.
    """
    body = json.dumps(chat_body(run.plan, job.model, job.text))
    run.in_flight += 1
    try:
        sent_s = run.now_s()
        # With `stream=True` Locust's own time ends at the headers: it is overwritten below.
        with session.post(
            _PATH, data=body, headers=headers(run.plan), name=job.model, stream=True, catch_response=True
        ) as answer:
            stream, failure = _read(answer, run)
            record = _record(run, job, stream, sent_s=sent_s, failure=failure)
            run.records.append(record)
            answer.request_meta["response_time"] = record.end_to_end_s * 1000
            answer.request_meta["response_length"] = record.output_tokens or 0
            if failure is None:
                answer.success()
            else:
                answer.failure(f"{failure[0]}: {failure[1]}")
    except GreenletExit:
        run.unfinished += 1
        raise
    finally:
        run.in_flight -= 1


def dispatch(session: Any, run: Run, stopping: Event) -> None:
    """Open loop: send every request when it is due, until the schedule ends or `stopping` is set; then drain."""
    under_way = Group()
    try:
        for job in run.jobs():
            if stopping.wait(max(0.0, job.scheduled_s - run.now_s())):
                break
            if len(under_way) >= run.plan.max_in_flight:
                run.dropped += 1
            else:
                under_way.spawn(send, session, run, job)
        under_way.join()
    finally:
        under_way.kill()


def _read(answer: Any, run: Run) -> tuple[ChatStream, tuple[str, str] | None]:
    stream = ChatStream()
    if answer.status_code != 200:
        return stream, _refusal(answer)
    try:
        # Not `iter_lines`: it waits for a full block, and TTFT would be that of the block's last token.
        # Read to the very end, not to [DONE]: only then the connection can serve again.
        while line := answer.stream.readline(_LINE_END):
            stream.feed(line, run.now_s())
    except TimeoutError as exc:
        return stream, (TIMEOUT, str(exc) or "The server fell silent within the answer.")
    except (HTTPParseError, OSError):
        # Cut off: truncated, unless [DONE] had come before.
        return stream, stream.failure()
    return stream, stream.failure()


def _refusal(answer: Any) -> tuple[str, str]:
    error = getattr(answer, "error", None)
    if answer.status_code == 0:
        return (TIMEOUT if isinstance(error, TimeoutError) else CONNECT), str(error)
    return f"http_{answer.status_code}", str(answer.text or "")[:300]


def _record(run: Run, job: Job, stream: ChatStream, *, sent_s: float, failure: tuple[str, str] | None) -> Record:
    return Record(
        index=job.index,
        model=job.model,
        served_by=stream.served_by,
        warm_up=job.warm_up,
        scheduled_s=job.scheduled_s if run.plan.open_loop else sent_s,
        sent_s=sent_s,
        token_s=tuple(stream.token_at),
        ended_s=stream.done_at if stream.done_at is not None else run.now_s(),
        prompt_tokens=stream.prompt_tokens,
        cached_tokens=stream.cached_tokens,
        output_tokens=stream.output_tokens,
        finish_reason=stream.finish_reason,
        error=failure[0] if failure else None,
        message=failure[1] if failure else None,
    )
