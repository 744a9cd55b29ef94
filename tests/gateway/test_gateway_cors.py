"""What pages in a browser may do with the API."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.fakes.scripted_engine import DONE, stream, token, whole
from tests.gateway.house import ANSWER, MESSAGES, House, open_house

pytestmark = pytest.mark.anyio

APP = "https://app.example.org"
BODY = {"model": "demo", "messages": MESSAGES}


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """Lets pages of `APP` in."""
    async with open_house(cors_origins=[APP]) as one:
        await one.know()
        one.engine.then(whole(ANSWER))
        yield one


def allowed(answer: httpx.Response) -> str | None:
    return answer.headers.get("access-control-allow-origin")


async def preflight(house: House, path: str, origin: str = APP) -> httpx.Response:
    wishes = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    return await house.client.options(path, headers={"origin": origin, **wishes})


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/models", "/v1/chat/completions?x=1"])
async def test_browser_may_ask_before_it_sends(house: House, path: str) -> None:
    answer = await preflight(house, path)
    assert (answer.status_code, allowed(answer)) == (200, APP)
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    assert house.engine.requests == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models"])
async def test_page_of_another_origin_is_not_told_that_it_may(house: House, path: str) -> None:
    assert allowed(await preflight(house, path, "https://evil.example")) is None


async def test_page_can_read_whole_answers_streams_errors_and_what_is_documented(house: House) -> None:
    headers = {"origin": APP}
    house.engine.then(whole(ANSWER), stream(token("a"), DONE), whole({"error": "no"}, 500))
    post = house.client.post
    answers = [
        await post("/v1/chat/completions", json=BODY, headers=headers),
        await post("/v1/chat/completions", json={**BODY, "stream": True}, headers=headers),
        await post("/v1/chat/completions", json=BODY, headers=headers),
        await post("/v1/chat/completions", content=b"{", headers=headers),
        await post("/v1/chat/completions", json={**BODY, "model": "gone"}, headers=headers),
        await house.client.get("/v1/chat/completions", headers=headers),
        await house.client.get("/v1/models", headers=headers),
        await house.client.get("/v1/models/gone", headers=headers),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 500, 400, 404, 405, 200, 404]
    assert [allowed(answer) for answer in answers] == [APP] * 8
    assert all("origin" in answer.headers["vary"].lower() for answer in answers)


@pytest.mark.parametrize("origin", ["https://evil.example", f"{APP}.evil.example", APP.upper(), "null", ""])
async def test_page_of_another_origin_cannot_read_the_answer(house: House, origin: str) -> None:
    for answer in (
        await house.client.post("/v1/chat/completions", json=BODY, headers={"origin": origin}),
        await house.client.get("/v1/models", headers={"origin": origin}),
    ):
        assert (answer.status_code, allowed(answer)) == (200, None)


async def test_star_lets_every_page_in() -> None:
    async with open_house(cors_origins=["*"]) as house:
        await house.know()
        headers = {"origin": "https://any.example"}
        answer = await house.client.post("/v1/chat/completions", json=BODY, headers=headers)
        assert allowed(answer) in {"*", "https://any.example"}
        assert allowed(await house.client.get("/v1/models", headers=headers)) in {"*", "https://any.example"}


async def test_without_origins_no_page_can_read_anything() -> None:
    async with open_house() as house:
        await house.know()
        headers = {"origin": APP}
        assert allowed(await house.client.post("/v1/chat/completions", json=BODY, headers=headers)) is None
        assert allowed(await house.client.get("/v1/models", headers=headers)) is None
        assert allowed(await preflight(house, "/v1/chat/completions")) is None
