"""The path of a request: every stage, top to bottom.

    body → auth → budget → limits → admission → routing → upstream → forward → record

It runs as soon as the body is there (`connection.py`), driven by its own events (`drive.py`). A stage that refuses
raises a `RequestError`; when the client leaves, `CancelledError` is raised where the path waits. The visit answers what
was raised, gives back what the request holds, and writes the record, however the request ends.
"""

from __future__ import annotations

import re
from asyncio import CancelledError
from typing import Final

from server.errors import MethodNotAllowedError
from server.gateway.admission import Claim
from server.gateway.attempts import first_answer
from server.gateway.client import Client
from server.gateway.forward import forward
from server.gateway.grammars import Call
from server.gateway.prices import ENERGY_WISH, check_wish
from server.gateway.trace import Trace
from server.gateway.visit import Visit
from server.gateway.worker import Worker

__all__ = ["serve"]

_LONG_NAME: Final = 200
_SANE_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")


async def serve(worker: Worker, client: Client) -> None:
    """Serve one inference request, whose body is there, to its record."""
    endpoint = client.endpoint
    with Visit(worker, client, _new_trace(worker, client)) as visit:
        trace = visit.trace
        _check(client)
        grant = worker.keys.holder_of(client.fields)
        trace.tenant = grant.tenant
        body = client.take_body()
        call = _understand(client, body, trace)
        worker.keys.check_model(grant, call.model)
        if worker.budgets.over:
            visit.budget = worker.budgets.check(grant.tenant)
        size = len(body)
        visit.charge = worker.limits.try_charge(grant, size) or await worker.limits.charge(grant, size)
        plan = worker.router.route_of(call.model, endpoint)
        claim = visit.claim = Claim(grant.tenant, grant.priority, size, plan)
        if not worker.admission.try_enter(claim):
            trace.queued = await worker.admission.enter(claim)
        answer = await first_answer(worker, visit, call, plan, body)
        await forward(answer, visit, worker)


def _new_trace(worker: Worker, client: Client) -> Trace:
    wanted = client.fields.get(b"x-request-id")
    return Trace(
        request_id=worker.visits.request_id(wanted.decode() if wanted and _SANE_ID.fullmatch(wanted) else None),
        endpoint=client.endpoint.name,
        received_at=client.received_at,
    )


def _check(client: Client) -> None:
    """What was wrong before the path began."""
    if client.left:
        raise CancelledError
    if client.refusal is not None:
        raise client.refusal
    if client.method != b"POST":
        raise MethodNotAllowedError(f"{client.method.decode()} is not possible here; use POST.")


def _understand(client: Client, body: bytes, trace: Trace) -> Call:
    """The deciding fields."""
    endpoint = client.endpoint
    if ENERGY_WISH in client.fields:
        check_wish(client.fields[ENERGY_WISH])
        trace.includes_energy = True
    call = endpoint.grammar.parse(body)
    trace.call = call
    trace.requested_model = call.model if len(call.model) <= _LONG_NAME else call.model[:_LONG_NAME]
    trace.streamed = bool(call.stream) and endpoint.streams
    trace.adds_usage = trace.streamed and not endpoint.grammar.asks_for_usage(call)
    return call
