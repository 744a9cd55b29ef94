"""Keys and their limits, as a client of the gateway meets them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from server.errors import NoCapacityError, PermissionDeniedError, UnauthenticatedError
from server.gateway.auth import OPEN_GRANT, Keyring, visible
from server.wire import KeyGrant
from tests.fakes.scripted_engine import DONE, EngineConnection, chunked, role, stream, token, usage, whole
from tests.gateway.house import ANSWER, MESSAGES, House, candidate, open_house, problem, route, until
from tests.gateway.raw import CHAT, dialled, post

pytestmark = pytest.mark.anyio

SECRET = "wg-a-secret"
OTHER = "wg-another"


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def grant(**changes: Any) -> KeyGrant:
    return KeyGrant(**{"id": "key-1", "tenant": "acme", **changes})


async def give_keys(house: House, **grants: KeyGrant) -> None:
    """Publish the usual table with these keys, by their secret's name."""
    await house.know()
    assert house.control.snapshot is not None
    secrets = {"secret": SECRET, "other": OTHER}
    table = msgspec.structs.replace(
        house.control.snapshot,
        version=house.control.snapshot.version + 1000,
        keys={digest(secrets[name]): one for name, one in grants.items()},
    )
    house.control.push(table)
    await until(lambda: getattr(house.worker.router.snapshot, "version", None) == table.version)


async def ask(house: House, secret: str | None = SECRET, **changes: Any) -> httpx.Response:
    headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
    body = {"model": "demo:bf16", "messages": MESSAGES, **changes}
    return await house.client.post("/v1/chat/completions", json=body, headers=headers)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with open_house() as one:
        one.engine.then(whole(ANSWER))
        yield one


# --- who asks ---------------------------------------------------------------------------------------------------------


async def test_key_makes_the_tenant_and_stays_here(house: House) -> None:
    await give_keys(house, secret=grant())
    assert (await ask(house)).status_code == 200
    assert (await house.control.record()).tenant == "acme"
    assert SECRET not in str(house.engine.requests[0].headers)
    assert house.engine.requests[0].headers["authorization"] == "Bearer engine-secret"


@pytest.mark.parametrize(("secret", "status"), [(SECRET, 100), (OTHER, 401)])
async def test_only_a_known_key_gets_a_go_ahead_for_a_long_body(house: House, secret: str, status: int) -> None:
    await give_keys(house, secret=grant())
    data = post(b"authorization: Bearer " + secret.encode(), b"expect: 100-continue", body=b"x" * 200_000)
    async with dialled(house) as wire:
        assert (await wire.ask(data[:-200_000])).status == status


@pytest.mark.parametrize(
    "target", [b"/v1/chat/completions?x", b"/v1/%63hat/completions", b"http://a/v1/chat/completions"]
)
async def test_no_spelling_of_a_path_goes_around_the_key(house: House, target: bytes) -> None:
    await give_keys(house, secret=grant())
    async with dialled(house) as wire:
        assert (await wire.ask(post(target=target))).status == 401
        assert (await wire.ask(post(b"authorization: Bearer " + SECRET.encode(), target=target))).status == 200


async def test_key_in_the_trailers_is_no_key(house: House) -> None:
    await give_keys(house, secret=grant())
    chunks = b"%x\r\n%b\r\n0\r\nauthorization: Bearer %b\r\n\r\n" % (len(CHAT), CHAT, SECRET.encode())
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    async with dialled(house) as wire:
        assert (await wire.ask(head + chunks)).status == 401
    async with dialled(house) as wire:
        keyed = head.replace(b"\r\n\r\n", b"\r\nx-api-key: %b\r\n\r\n" % SECRET.encode())
        assert (await wire.ask(keyed + chunks)).status == 200
        assert (await wire.ask(post())).status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {SECRET}"},
        {"authorization": f"bearer {SECRET}"},
        {"authorization": f"BEARER   {SECRET}"},
        {"x-api-key": SECRET},
        {"x-api-key": OTHER, "authorization": f"Bearer {SECRET}"},
    ],
)
async def test_key_is_accepted_as_openai_and_as_anthropic_clients_send_it(
    house: House, headers: dict[str, str]
) -> None:
    await give_keys(house, secret=grant())
    for _ in range(2):  # the second time from memory
        body = {"model": "demo:bf16", "messages": MESSAGES}
        answer = await house.client.post("/v1/chat/completions", json=body, headers=headers)
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({}, "There is no API key"),
        ({"authorization": "Bearer wg-wrong"}, "Nobody knows"),
        ({"authorization": f"Basic {SECRET}"}, "not of the form"),
        ({"authorization": SECRET}, "not of the form"),
        ({"authorization": "Bearer"}, "not of the form"),
        ({"x-api-key": "wg-wrong"}, "Nobody knows"),
        ({"x-api-key": f"Bearer {SECRET}"}, "Nobody knows"),
        ({"authorization": "Bearer wg-wrong", "x-api-key": SECRET}, "Nobody knows"),
    ],
)
async def test_stranger_is_refused_and_told_why_but_not_what_it_sent(
    house: House, headers: dict[str, str], says: str
) -> None:
    await give_keys(house, secret=grant())
    for path in ("/v1/chat/completions", "/v1/models"):
        method = "GET" if path == "/v1/models" else "POST"
        body = None if method == "GET" else {"model": "demo:bf16", "messages": MESSAGES}
        answer = await house.client.request(method, path, json=body, headers=headers)
        error = problem(answer)
        assert (answer.status_code, error["type"]) == (401, "authentication_error")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert says in error["message"]
        assert "wg-" not in answer.text
    assert house.engine.requests == []


async def test_no_key_at_all_lets_nobody_in_where_there_was_one(house: House) -> None:
    await give_keys(house)
    assert (await ask(house, None)).status_code == 401


async def test_revoked_key_is_refused_with_the_next_table(house: House) -> None:
    await give_keys(house, secret=grant(), other=grant(id="key-2"))
    assert (await ask(house)).status_code == 200
    await give_keys(house, other=grant(id="key-2"))
    assert (await ask(house)).status_code == 401
    assert (await ask(house, OTHER)).status_code == 200


def test_nobody_is_let_in_before_the_keys_are_known() -> None:
    keys = Keyring()
    for headers in ({}, {b"authorization": b"Bearer x"}, {b"x-api-key": b"x"}):
        with pytest.raises(NoCapacityError, match="is starting"):
            keys.holder_of(headers)
    keys.replace({})
    with pytest.raises(UnauthenticatedError):
        keys.holder_of({})
    keys.replace(None)
    assert keys.holder_of({}) is OPEN_GRANT


# --- what it may ask for ----------------------------------------------------------------------------------------------


async def test_key_may_ask_for_its_models_only_and_sees_no_others(house: House) -> None:
    await give_keys(house, secret=grant(models=["demo:bf16"]))
    assert (await ask(house)).status_code == 200
    refused = await ask(house, model="demo")
    assert (refused.status_code, problem(refused)["type"]) == (403, "permission_error")
    headers = {"authorization": f"Bearer {SECRET}"}
    listed = (await house.client.get("/v1/models", headers=headers)).json()["data"]
    assert [model["id"] for model in listed] == ["demo:bf16"]
    assert (await house.client.get("/v1/models/demo", headers=headers)).status_code == 404


def test_model_must_be_named_literally() -> None:
    keys = Keyring()
    keys.check_model(grant(), "anything")
    keys.check_model(grant(models=["demo"]), "demo")
    for model in ("demo:bf16", "dem", "DEMO", ""):
        with pytest.raises(PermissionDeniedError):
            keys.check_model(grant(models=["demo"]), model)


async def test_key_without_models_sees_all(house: House) -> None:
    await house.know(route("a", candidate()), route("b", candidate()))
    assert house.control.snapshot is not None
    assert visible(house.control.snapshot, OPEN_GRANT) is house.control.snapshot
    assert list(visible(house.control.snapshot, grant(models=["b", "c"])).routes) == ["b"]


# --- how much ---------------------------------------------------------------------------------------------------------


async def test_requests_beyond_the_limit_are_a_429_that_says_when_to_come_back(house: House) -> None:
    await give_keys(house, secret=grant(requests_per_minute=3), other=grant(id="key-2"))
    for remaining in (b"2", b"1", b"0"):
        answer = await ask(house)
        assert answer.status_code == 200
        assert answer.headers["x-ratelimit-limit-requests"] == "3"
        assert answer.headers["x-ratelimit-remaining-requests"].encode() == remaining
    refused = await ask(house)
    assert (refused.status_code, problem(refused)["code"]) == (429, "rate_limit_exceeded")
    assert problem(refused)["type"] == "rate_limit_error"
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.headers["x-ratelimit-reset-requests"].endswith("s")
    assert (await ask(house, OTHER)).status_code == 200
    await house.control.until(
        lambda: (
            bool(house.control.batches) and house.control.batches[-1].gauges.rejections.get("rate_limit_requests") == 1
        )
    )


async def test_key_without_limits_gets_no_such_headers(house: House) -> None:
    await give_keys(house, secret=grant())
    assert not [name for name in (await ask(house)).headers if name.startswith("x-ratelimit")]


async def test_tokens_are_charged_as_the_engine_counted_them(house: House) -> None:
    await give_keys(house, secret=grant(tokens_per_minute=100_000))
    before = int((await ask(house)).headers["x-ratelimit-remaining-tokens"])
    house.engine.then(stream(role(), token("a"), usage(50_000, 40_000), DONE))
    streamed = await ask(house, stream=True)
    assert streamed.status_code == 200
    assert streamed.headers["x-ratelimit-limit-tokens"] == "100000"
    house.engine.then(whole(ANSWER))
    after = int((await ask(house)).headers["x-ratelimit-remaining-tokens"])
    assert before - after == pytest.approx(90_000, abs=1000)


async def test_request_that_no_engine_saw_costs_no_tokens(house: House) -> None:
    await give_keys(house, secret=grant(tokens_per_minute=1000))
    for _ in range(20):
        assert (await ask(house, model="none", padding="x" * 2000)).status_code == 404
    assert (await ask(house, padding="x" * 2000)).status_code == 200


async def test_seat_is_held_to_the_last_byte_and_free_after_it(house: House) -> None:
    release = asyncio.Event()

    async def slow(connection: EngineConnection) -> None:
        connection.stream_head()
        connection.event(role(), token("a"))
        await release.wait()
        connection.event(DONE)
        connection.send(chunked(b""))

    await give_keys(house, secret=grant(concurrency=1))
    house.engine.then(slow)
    running = asyncio.ensure_future(ask(house, stream=True))
    await until(lambda: len(house.engine.requests) == 1)
    refused = await ask(house)
    assert refused.status_code == 429
    assert "1 requests at the same time" in problem(refused)["message"]
    release.set()
    assert (await running).status_code == 200
    house.engine.then(whole(ANSWER))
    assert (await ask(house)).status_code == 200


async def test_client_that_leaves_gives_its_seat_back(house: House) -> None:
    async def silent(connection: EngineConnection) -> None:
        await connection.until_gone()

    await give_keys(house, secret=grant(concurrency=1))
    house.engine.then(silent)
    leaving = asyncio.ensure_future(ask(house, stream=True))
    await until(lambda: len(house.engine.requests) == 1)
    leaving.cancel()
    await house.control.record()
    house.engine.then(whole(ANSWER))
    assert (await ask(house)).status_code == 200
