"""What becomes of a request: refused early, passed on unchanged, its tokens counted."""

from __future__ import annotations

import asyncio
import re
from typing import Final

import httpx

from tests.benchmarks.probes.engine import ANSWER, Exchange, answer, stream
from tests.benchmarks.probes.ground import Cell, Ground, right_if
from tests.fakes.scripted_engine import head

__all__ = ["PROBES"]

_ODD_FIELDS: Final = b'"x_new" : {"a" :1.50, "b":"\\u00e9\\/", "n":12345678901234567890,  "e":1.0e-07}'
_PROMPT, _OUTPUT = 91, 137
_METRICS_S: Final = 8.0


async def _refused(ground: Ground, body: bytes, status: int) -> Cell:
    """The engine would refuse as well, as vLLM does: who asks it is right if the client is told in OpenAI's form."""
    error = b'{"error":{"message":"refused by the engine","type":"BadRequestError","param":null,"code":%d}}' % status
    got = await ground.ask(body, script=answer(error, status))
    asked = len(ground.engine.exchanges)
    note = got.shown + ("" if got.error is not None else ", no error object") + (", by the engine" if asked else "")
    return right_if(got.status == status and got.error is not None, note)


async def unknown_model(ground: Ground) -> Cell:
    """Unknown model → 404"""
    return await _refused(ground, ground.chat().replace(b'"demo"', b'"no-such-model"'), 404)


async def missing_model(ground: Ground) -> Cell:
    """No model → 400"""
    return await _refused(ground, b'{"messages":[{"role":"user","content":"Hi"}]}', 400)


async def bad_json(ground: Ground) -> Cell:
    """Bad JSON → 400"""
    return await _refused(ground, b'{"model":"demo","messages":[', 400)


async def unknown_fields(ground: Ground) -> Cell:
    """Unknown fields kept byte for byte"""
    body = ground.chat()[:-1] + b", " + _ODD_FIELDS + b"}"
    got = await ground.ask(body)
    if not ground.engine.exchanges:
        return Cell(False, f"{got.shown}, engine not asked")
    sent = ground.engine.exchanges[0].body
    kept = _ODD_FIELDS in sent
    return right_if(kept, "kept" if kept else "written anew" if b"x_new" in sent else "lost")


async def usage_known(ground: Ground) -> Cell:
    """Tokens of a stream known to the metrics, usage not asked for"""
    before = await _settled_counts(ground)
    await ground.ask(ground.chat(stream=True), script=stream(_PROMPT, _OUTPUT))
    if before is None:
        return Cell(False, "no metrics")
    for _ in range(int(_METRICS_S / 0.25)):
        await asyncio.sleep(0.25)
        after = await _token_counts(ground) or {}
        if any(value - before.get(series, 0.0) == _OUTPUT for series, value in after.items()):
            return Cell(True, "counted")
    return Cell(False, "unknown")


async def _settled_counts(ground: Ground) -> dict[str, float] | None:
    """The counts once what came before has arrived in them."""
    counts = await _token_counts(ground)
    for _ in range(int(_METRICS_S)):
        await asyncio.sleep(1.0)
        last, counts = counts, await _token_counts(ground)
        if counts == last:
            break
    return counts


async def _token_counts(ground: Ground) -> dict[str, float] | None:
    """Every series about tokens that has a count; None: there are no metrics to read."""
    if ground.target.metrics_url is None:
        return None
    headers = {"authorization": f"Bearer {ground.target.api_key}"} if ground.target.api_key else {}
    async with httpx.AsyncClient(follow_redirects=True) as client:
        try:
            text = (await client.get(ground.target.metrics_url, headers=headers, timeout=5)).text
        except httpx.TransportError:
            return None
    lines = (line.rpartition(" ") for line in text.splitlines() if re.match(r"\w*token\w*[{ ]", line))
    return {series: float(value) for series, _, value in lines}


async def usage_not_given(ground: Ground) -> Cell:
    """Client that did not ask for usage gets none"""
    got = await ground.ask(ground.chat(stream=True), script=stream(_PROMPT, _OUTPUT))
    given = re.search(rb'"usage": ?\{', got.body) is not None
    right = not given and b"[DONE]" in got.body
    return right_if(right, "gets it" if given else "gets none" if right else "stream broken")


async def usage_given(ground: Ground) -> Cell:
    """Client that asked for usage gets it"""
    body = ground.chat(stream=True, stream_options={"include_usage": True})
    got = await ground.ask(body, script=stream(_PROMPT, _OUTPUT))
    given = len(re.findall(rb'"completion_tokens": ?137\b', got.body))
    return right_if(given == 1, f"{given} times")


async def authorization(ground: Ground) -> Cell:
    """The client's Authorization stays here"""
    secret = ground.target.api_key or "sk-of-the-client"
    headers = () if ground.target.api_key else (f"Authorization: Bearer {secret}",)
    got = await ground.ask(ground.chat(), *headers)
    if not ground.engine.exchanges:
        return Cell(False, f"{got.shown}, engine not asked")
    leaked = secret.encode() in ground.engine.exchanges[0].start
    return right_if(not leaked, "passed to the engine" if leaked else "kept")


async def hop_by_hop(ground: Ground) -> Cell:
    """Headers named in Connection are dropped"""
    got = await ground.ask(ground.chat(), "Connection: keep-alive, X-Hop", "X-Hop: 1", "Keep-Alive: timeout=5")
    if not ground.engine.exchanges:
        return Cell(False, f"{got.shown}, engine not asked")
    start = ground.engine.exchanges[0].start.lower()
    leaked = [name for name in ("x-hop", "keep-alive") if f"\r\n{name}:".encode() in start]
    return right_if(not leaked, "passed on: " + ", ".join(leaked) if leaked else "dropped")


async def _slow_first(exchange: Exchange) -> None:
    name = b"first" if b"first" in exchange.body else b"second"
    if name == b"first":
        await asyncio.sleep(0.2)
    body = ANSWER.replace(b"Hello", name)
    exchange.send(head(200, (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))), body)


async def pipelined(ground: Ground) -> Cell:
    """Pipelined requests answered in order"""
    ground.engine.begin(_slow_first)
    bodies = [ground.chat(messages=[{"role": "user", "content": name}]) for name in ("first", "second")]
    async with ground.wire() as wire:
        await wire.send(b"".join(ground.request(body) for body in bodies))
        got = await wire.read(lambda raw: b'"first"' in raw and b'"second"' in raw, 5.0)
    places = [got.raw.find(b'"%b"' % name) for name in (b"first", b"second")]
    if -1 in places:
        return Cell(False, f"{got.raw.count(b'HTTP/1.1 200')} of 2 answered")
    return right_if(places[0] < places[1], "in order" if places[0] < places[1] else "out of order")


async def other_methods(ground: Ground) -> Cell:
    """GET, HEAD, OPTIONS on an inference path: refused, engine not asked"""
    statuses = {}
    for method in ("GET", "HEAD", "OPTIONS"):
        got = await ground.ask_raw(ground.head(method=method), bound_s=1.0)
        statuses[method] = got.status
    right = statuses["GET"] in {404, 405} and statuses["HEAD"] in {404, 405}
    right = right and statuses["OPTIONS"] in {200, 204, 404, 405} and not ground.engine.exchanges
    return right_if(right, ", ".join(f"{method} {status}" for method, status in statuses.items()))


PROBES: Final = (
    unknown_model,
    missing_model,
    bad_json,
    unknown_fields,
    usage_known,
    usage_not_given,
    usage_given,
    authorization,
    hop_by_hop,
    pipelined,
    other_methods,
)
