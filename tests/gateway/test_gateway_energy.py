"""What a client sees of energy, end to end on real sockets, in every grammar."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import httpx
import openai
import pytest

from server.wire import Price, Prices
from tests.fakes.scripted_engine import (
    DONE,
    EngineConnection,
    chunked,
    messages_stream,
    named,
    responses_stream,
    role,
    sse,
    stream,
    token,
    usage,
    whole,
)
from tests.gateway.house import ANSWER, House, candidate, route, until
from tests.gateway.raw import CHAT, dialled, post

pytestmark = pytest.mark.anyio

JOULES = "x-wattgate-energy-joules"
WISH = {"X-Wattgate-Energy": "include"}
PRICE = Price(3.0, 40.0, "phase_time", "gpu")
"""µJ: nine prompt tokens, of which two were cached, and three output tokens are 141 of them."""
NOTE = b'"wattgate":{"energy_joules":0.0001410,"method":"phase_time","scope":"gpu","provisional":true}'
UNKNOWN = b'"wattgate":{"energy_joules":null,"method":null,"scope":null,"provisional":true}'
_ANY_NOTE = re.compile(rb',"wattgate":\{[^}]*\}')

CHAT_BODY = {"model": "demo:bf16", "messages": [{"role": "user", "content": "Hi"}]}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", CHAT_BODY),
    "completions": ("/v1/completions", {"model": "demo:bf16", "prompt": "Hi"}),
    "responses": ("/v1/responses", {"model": "demo:bf16", "input": "Hi"}),
    "messages": ("/v1/messages", {**CHAT_BODY, "max_tokens": 8}),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def text_token(text: str, model: str) -> bytes:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": None}
    return sse({"id": "c-1", "object": "text_completion", "created": 1, "model": model, "choices": [choice]})


def events_of(kind: str, *, model: str = "demo:bf16") -> list[bytes]:
    """A stream of three tokens."""
    if kind == "responses":
        return responses_stream("a", 'b "', "c", model=model)
    if kind == "messages":
        return messages_stream("a", 'b "', "c", model=model)
    last = usage(9, 3, cached=2, model=model)
    if kind == "completions":
        return [*(text_token(text, model) for text in ("a", 'b "', "c")), last, DONE]
    return [role(model=model), *(token(text, model=model) for text in ("a", 'b "', "c")), last, DONE]


def answer_of(kind: str, *, model: str = "demo:bf16") -> dict[str, Any]:
    if kind == "responses":
        counts: dict[str, Any] = {"input_tokens": 9, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 2}}
    elif kind == "messages":
        counts = {"input_tokens": 7, "output_tokens": 3, "cache_read_input_tokens": 2}
    else:
        counts = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}
    return {"id": "x", "usage": counts, "model": model, "unknown": {"usage": {"x": "}"}}}


async def price(house: House, *, of: Price | None = PRICE, **changes: Any) -> None:
    """The worker knows these prices of the engine (none: of no engine) and then a routing table."""
    house.control.push(Prices(engines={} if of is None else {"engine-a": of}))
    await house.know(**changes)  # comes behind the prices, on the same connection


async def ask(house: House, kind: str, *, wish: bool = False, **changes: Any) -> httpx.Response:
    path, body = KINDS[kind]
    return await house.client.post(path, json={**body, **changes}, headers=WISH if wish else {})


# --- whole answers ----------------------------------------------------------------------------------------------------


@kinds
async def test_whole_answer_says_its_joules_in_a_header_and_comes_byte_for_byte(house: House, kind: str) -> None:
    await price(house)
    house.engine.then(whole(answer_of(kind)))
    response = await ask(house, kind)
    assert (response.headers[JOULES], response.headers["x-wattgate-engine"]) == ("0.0001410", "engine-a")
    assert response.content == json.dumps(answer_of(kind)).encode()


@kinds
async def test_whole_answer_has_the_joules_in_its_usage_too_for_a_client_that_wishes(house: House, kind: str) -> None:
    await price(house)
    house.engine.then(whole(answer_of(kind)))
    response = await ask(house, kind, wish=True)
    assert response.headers[JOULES] == "0.0001410"
    note = response.json()["usage"]["wattgate"]
    assert note == {"energy_joules": 0.000141, "method": "phase_time", "scope": "gpu", "provisional": True}
    assert _ANY_NOTE.sub(b"", response.content) == json.dumps(answer_of(kind)).encode()
    assert "x-wattgate-energy" not in house.engine.requests[0].headers


@kinds
@pytest.mark.parametrize("of", [None, Price(None, 40.0, "counters", "gpu"), Price(3.0, None, "counters", "gpu")])
async def test_whole_answer_without_a_price_that_it_needs_has_no_header_and_a_null(
    house: House, kind: str, of: Price | None
) -> None:
    await price(house, of=of)
    house.engine.then(whole(answer_of(kind)))
    plain, wished = await ask(house, kind), await ask(house, kind, wish=True)
    assert JOULES not in plain.headers
    assert JOULES not in wished.headers
    assert plain.content == json.dumps(answer_of(kind)).encode()
    assert UNKNOWN in wished.content


@pytest.mark.parametrize("usage_said", [None, {"prompt_tokens": 9}, {}])
async def test_answer_whose_counts_are_not_known_has_no_joules(house: House, usage_said: Any) -> None:
    await price(house)
    house.engine.then(whole({**ANSWER, "usage": usage_said}))
    response = await ask(house, "chat", wish=True)
    assert JOULES not in response.headers
    assert b"energy_joules" not in response.content or UNKNOWN in response.content


async def test_vectors_cost_their_prompt(house: House) -> None:
    house.control.push(Prices(engines={"engine-a": Price(3.0, None, "counters", "gpu")}))
    await house.know(route("vectors", candidate(), task="embed"))
    house.engine.then(whole({"data": [], "usage": {"prompt_tokens": 20, "total_tokens": 20, "completion_tokens": 0}}))
    response = await house.client.post("/v1/embeddings", json={"model": "vectors", "input": "x"})
    assert response.headers[JOULES] == "0.00006000"


async def test_member_of_that_name_that_an_engine_sends_is_replaced(house: House) -> None:
    await price(house)
    counts = {"wattgate": {"energy_joules": 1}, "prompt_tokens": 9, "completion_tokens": 3}
    house.engine.then(whole({**ANSWER, "usage": counts}))
    response = await ask(house, "chat", wish=True)
    assert response.content.count(b'"wattgate"') == 1
    assert response.json()["usage"]["wattgate"]["energy_joules"] == 0.000147


# --- streams ----------------------------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("streamed_usage", [None, {"include_usage": False}, {"include_usage": True}])
async def test_stream_has_the_joules_in_its_last_usage_and_no_other_byte_changed(
    house: House, kind: str, streamed_usage: Any
) -> None:
    await price(house)
    house.engine.then(stream(*events_of(kind)))
    response = await ask(house, kind, wish=True, stream=True, stream_options=streamed_usage)
    assert response.content.count(NOTE) == 1
    assert response.content.replace(b"," + NOTE, b"") == b"".join(events_of(kind))
    assert JOULES not in response.headers
    sent = house.engine.requests[0]
    assert "x-wattgate-energy" not in sent.headers
    if kind in {"chat", "completions"}:
        assert sent.json["stream_options"] == {"include_usage": True}
    record = await house.control.record()
    assert (record.outcome, record.prompt_tokens, record.cached_tokens, record.output_tokens) == ("ok", 9, 2, 3)


@kinds
async def test_stream_of_a_client_that_does_not_wish_is_as_without_prices(house: House, kind: str) -> None:
    await price(house)
    house.engine.then(stream(*events_of(kind)))
    response = await ask(house, kind, stream=True)
    stripped = kind in {"chat", "completions"}
    assert response.content == b"".join(event for event in events_of(kind) if not stripped or b"usage" not in event)


@kinds
async def test_stream_without_a_price_says_null(house: House, kind: str) -> None:
    house.engine.then(stream(*events_of(kind)))
    response = await ask(house, kind, wish=True, stream=True)
    assert response.content.count(UNKNOWN) == 1
    assert response.content.replace(b"," + UNKNOWN, b"") == b"".join(events_of(kind))


@kinds
async def test_price_is_that_of_the_streams_end(house: House, kind: str) -> None:
    await price(house, of=Price(1000.0, 1000.0, "token_share", "module"))
    events, repriced = events_of(kind), asyncio.Event()

    async def script(connection: EngineConnection) -> None:
        connection.stream_head()
        connection.event(*events[:3])
        await repriced.wait()
        connection.event(*events[3:])
        connection.send(chunked(b""))

    house.engine.then(script)
    asked = asyncio.ensure_future(ask(house, kind, wish=True, stream=True))
    await house.engine.request()
    await price(house)
    repriced.set()
    assert (await asked).content.count(NOTE) == 1


@kinds
@pytest.mark.parametrize("streamed", [True, False])
async def test_engine_that_calls_the_model_otherwise_is_quoted_in_the_right_names_with_joules(
    house: House, kind: str, streamed: bool
) -> None:
    house.control.push(Prices(engines={"engine-a": PRICE}))
    await house.know(route("far", candidate(upstream_model="org/big", answer_model="far:fp8")), rewrite_model=True)
    before, after = events_of(kind, model="org/big"), b"".join(events_of(kind, model="far:fp8"))
    if not streamed:
        after = json.dumps(answer_of(kind, model="far:fp8")).encode()
    house.engine.then(stream(*before) if streamed else whole(answer_of(kind, model="org/big")))
    response = await ask(house, kind, wish=True, model="far", stream=streamed)
    assert response.content.count(NOTE) == 1
    assert response.content.replace(b"," + NOTE, b"") == after


async def test_usage_in_every_frame_has_the_joules_in_the_last_only(house: House) -> None:
    await price(house)
    frame = json.loads(token("a").removeprefix(b"data: "))
    each = [sse({**frame, "usage": {"prompt_tokens": 9, "completion_tokens": number}}) for number in (1, 2, 3)]
    events = [role(), *each, usage(9, 3, cached=2), DONE]
    house.engine.then(stream(*events))
    options = {"include_usage": True, "continuous_usage_stats": True}
    response = await ask(house, "chat", wish=True, stream=True, stream_options=options)
    assert response.content == b"".join(events).replace(b'"cached_tokens":2}', b'"cached_tokens":2},' + NOTE)


@kinds
async def test_events_that_the_network_cut_anywhere_have_the_joules_once(house: House, kind: str) -> None:
    await price(house)
    data = b"".join(events_of(kind))

    async def script(connection: EngineConnection) -> None:
        connection.stream_head()
        for start in range(0, len(data), 7):
            connection.send(chunked(data[start : start + 7]))
        connection.send(chunked(b""))

    house.engine.then(script)
    response = await ask(house, kind, wish=True, stream=True)
    assert response.content.count(NOTE) == 1
    assert response.content.replace(b"," + NOTE, b"") == data


async def test_response_that_stopped_at_its_bound_has_its_joules_and_one_that_failed_has_none(house: House) -> None:
    await price(house)
    events = events_of("responses")
    incomplete = events[-1].replace(b"response.completed", b"response.incomplete")
    failed = events[-1].replace(b"response.completed", b"response.failed")
    house.engine.then(stream(*events[:-1], incomplete), stream(*events[:-1], failed))
    assert (await ask(house, "responses", wish=True, stream=True)).content.count(NOTE) == 1
    assert b"wattgate" not in (await ask(house, "responses", wish=True, stream=True)).content


# --- what goes wrong --------------------------------------------------------------------------------------------------


@kinds
async def test_wish_that_means_nothing_is_refused_and_no_engine_is_asked(house: House, kind: str) -> None:
    path, body = KINDS[kind]
    response = await house.client.post(path, json=body, headers={"x-wattgate-energy": "yes"})
    assert response.status_code == 400
    assert "`X-Wattgate-Energy: yes`" in response.json()["error"]["message"]
    assert "send `include`" in response.json()["error"]["message"]
    assert house.engine.requests == []
    assert (await house.control.record()).outcome == "client_error"


@kinds
@pytest.mark.parametrize("streamed", [True, False])
async def test_errors_have_no_joules(house: House, kind: str, streamed: bool) -> None:
    await price(house)
    house.engine.then(whole({"error": {"message": "no", "type": "x"}, **answer_of(kind)}, 400))
    for response in (
        await ask(house, kind, wish=True, stream=streamed),
        await ask(house, kind, wish=True, stream=streamed, model="nothing"),
    ):
        assert response.status_code in {400, 404}
        assert JOULES not in response.headers
        assert b"energy_joules" not in response.content


@kinds
async def test_stream_that_fails_before_its_usage_has_no_joules(house: House, kind: str) -> None:
    await price(house)
    error = {"type": "error", "error": {"message": "out of memory", "type": "api_error"}}

    async def dies(connection: EngineConnection) -> None:
        connection.stream_head()
        connection.event(*events_of(kind)[:3])
        connection.close()

    house.engine.then(stream(*events_of(kind)[:3], named(error)), dies)
    for _ in range(2):
        assert b"wattgate" not in (await ask(house, kind, wish=True, stream=True)).content


async def test_client_that_leaves_in_such_a_stream_is_counted_as_cancelled(house: House) -> None:
    await price(house)

    async def script(connection: EngineConnection) -> None:
        connection.stream_head()
        connection.event(*events_of("chat")[:3])
        await connection.until_gone()

    house.engine.then(script)
    async with dialled(house) as wire:
        wire.send(post(b"x-wattgate-energy: include", body=CHAT[:-1] + b',"stream":true}'))
        await wire.reader.readuntil(b'"a"')
    record = await house.control.record()
    assert (record.outcome, record.cancelled_when, record.output_tokens) == ("cancelled", "streaming", None)
    await until(lambda: house.worker.visits.running == 0)


async def test_pipelined_requests_get_what_each_of_them_wished(house: House) -> None:
    await price(house)
    house.engine.then(
        whole(answer_of("chat")), stream(*events_of("chat")), whole(answer_of("chat")), stream(*events_of("chat"))
    )
    wish, streamed = b"x-wattgate-energy: include", CHAT[:-1] + b',"stream":true}'
    async with dialled(house) as wire:
        wire.send(post(wish), post(wish, body=streamed), post(), post(body=streamed))
        answers = [await wire.answer() for _ in range(4)]
    assert [NOTE in answer.body for answer in answers] == [True, True, False, False]
    assert [answer.headers.get(JOULES) for answer in answers] == ["0.0001410", None, "0.0001410", None]


# --- OpenAI's own client ----------------------------------------------------------------------------------------------


async def test_official_client_reads_the_joules(house: House) -> None:
    await price(house)
    house.engine.then(
        stream(*events_of("chat")),
        stream(*events_of("responses")),
        whole({**ANSWER, "usage": answer_of("chat")["usage"]}),
    )
    async with openai.AsyncOpenAI(
        base_url=f"{house.client.base_url}/v1", api_key="unused", max_retries=0, default_headers=WISH
    ) as client:
        messages: Any = CHAT_BODY["messages"]
        chunks = [
            chunk async for chunk in await client.chat.completions.create(model="demo", messages=messages, stream=True)
        ]
        assert [chunk.choices[0].delta.content for chunk in chunks if chunk.choices] == ["", "a", 'b "', "c"]
        seen: list[Any] = [chunk.usage for chunk in chunks if chunk.usage]
        assert [(one.completion_tokens, one.wattgate["energy_joules"]) for one in seen] == [(3, 0.000141)]
        events = [event async for event in await client.responses.create(model="demo", input="Hi", stream=True)]
        last: Any = events[-1]
        assert (last.type, last.response.usage.wattgate["scope"]) == ("response.completed", "gpu")
        got: Any = await client.chat.completions.create(model="demo", messages=messages)
        assert got.usage.wattgate["provisional"] is True
