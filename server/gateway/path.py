"""The path of a request: every stage, top to bottom.

    auth → body → admission → routing → upstream → forward → record

A stage that refuses raises a `RequestError`; the visit answers it, stops everything when the client leaves, and writes
the record. Slot, count and connection are given back by leaving their blocks, however that happens.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

import msgspec
from starlette.types import Receive, Scope, Send

from server.errors import BadRequestError, BodyTooLargeError, MethodNotAllowedError
from server.gateway.endpoints import Endpoint
from server.gateway.forward import Wishes, forward
from server.gateway.openai.calls import Call, asks_for_usage, parse_call, upstream_body
from server.gateway.routing.router import Target
from server.gateway.trace import Trace
from server.gateway.upstream.upstream import Exchange
from server.gateway.visit import Visit
from server.gateway.worker import Worker

__all__ = ["serve"]

_SANE_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")


async def serve(worker: Worker, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one inference request from its first header to its record."""
    async with Visit(worker, _new_trace(worker, endpoint, scope), scope, send) as visit:
        _check_method(scope)
        tenant = visit.trace.tenant = worker.authenticator.tenant_of(scope["headers"])
        body = await _body_in_time(visit, worker, scope, receive)
        visit.body_is_read()
        call, strip_usage = _understand(endpoint, body, visit.trace)
        async with worker.admission.slot(tenant) as slot:
            visit.trace.queued = slot.waited
            target = visit.trace.target = worker.router.choose(call.model, endpoint)
            exchange = visit.trace.exchange = _address(worker, endpoint, target, call, body, strip_usage)
            with worker.router.one_more_at(target.replica.name):
                async with exchange as answer:
                    await forward(answer, visit, _wishes(target, strip_usage=strip_usage), worker.recorder)


def _new_trace(worker: Worker, endpoint: Endpoint, scope: Scope) -> Trace:
    wanted = _header(scope, b"x-request-id")
    return Trace(
        request_id=worker.request_id(wanted.decode() if _SANE_ID.fullmatch(wanted) else None),
        endpoint=endpoint.name,
        received_at=worker.clock.monotonic(),
    )


def _check_method(scope: Scope) -> None:
    if scope["method"] != "POST":
        raise MethodNotAllowedError(f"{scope['method']} is not possible at {scope['path']}; use POST.")


async def _body_in_time(visit: Visit, worker: Worker, scope: Scope, receive: Receive) -> bytes:
    patience = worker.settings.idle_timeout_s
    try:
        async with asyncio.timeout(patience):
            return await _read_body(scope, receive, worker.settings.max_body_bytes)
    except TimeoutError as exc:
        visit.close_after_answer()
        raise BadRequestError(
            f"The body did not come within {patience:g} s (`gateway.idle_timeout_s`). Send it without a pause."
        ) from exc


async def _read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body; refused as soon as it is known to be too long."""
    announced = _header(scope, b"content-length")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False) and len(body) <= limit:
        return body
    pieces, size = [body], len(body)
    while size <= limit and message.get("more_body", False):
        message = await receive()
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
    if size > limit:
        raise _too_large(limit)
    return b"".join(pieces)


def _too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"The body is longer than {limit} bytes (`gateway.max_body_bytes`); send less.")


def _understand(endpoint: Endpoint, body: bytes, trace: Trace) -> tuple[Call, bool]:
    """The deciding fields, and whether the gateway must ask for usage and strip it again."""
    call = parse_call(endpoint.decoder, body)
    if not call.model:
        raise BadRequestError("`model` is empty; `GET /v1/models` lists what is served.", param="model")
    trace.requested_model = call.model
    trace.streamed = bool(call.stream) and endpoint.streams
    return call, trace.streamed and not asks_for_usage(call)


def _address(
    worker: Worker, endpoint: Endpoint, target: Target, call: Call, body: bytes, strip_usage: bool
) -> Exchange:
    out = upstream_body(body, call, upstream_model=target.candidate.upstream_model, add_usage=strip_usage)
    return worker.upstream.exchange(target.replica, endpoint.paths[0], out)


def _wishes(target: Target, *, strip_usage: bool) -> Wishes:
    model = msgspec.json.encode(target.candidate.answer_model) if target.replica.rewrite_model else None
    return Wishes(strip_usage=strip_usage, model=model)


def _header(scope: Scope, wanted: bytes) -> bytes:
    for name, value in scope["headers"]:
        if name == wanted:
            return bytes(value)
    return b""
