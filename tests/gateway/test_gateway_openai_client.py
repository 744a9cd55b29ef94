"""The official `openai` client as a client."""

from __future__ import annotations

from collections.abc import AsyncIterator

import openai
import pytest

from tests.fakes.scripted_engine import DONE, EngineConnection, role, stream, token, usage, whole
from tests.gateway.house import House, candidate, route

pytestmark = pytest.mark.anyio

MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.fixture
async def client(house: House) -> AsyncIterator[openai.AsyncOpenAI]:
    url = f"http://127.0.0.1:{house.port}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="sk-any", max_retries=0) as one:
        yield one


async def test_whole_chat(house: House, client: openai.AsyncOpenAI) -> None:
    message = {"role": "assistant", "content": "Hello"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "demo:bf16", "choices": [choice]}
    house.engine.then(whole(answer))
    got = await client.chat.completions.create(model="demo", messages=MESSAGES)
    assert (got.choices[0].message.content, got.model) == ("Hello", "demo:bf16")


@pytest.mark.parametrize("wished", [True, False])
async def test_streamed_chat(house: House, client: openai.AsyncOpenAI, wished: bool) -> None:
    house.engine.then(stream(role(), token("Hel"), token("lo"), token("", finish="stop"), usage(5, 2), DONE))
    options = {"include_usage": True} if wished else openai.omit
    answer = await client.chat.completions.create(model="demo", messages=MESSAGES, stream=True, stream_options=options)
    chunks = [chunk async for chunk in answer]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello"
    counts = [chunk.usage.completion_tokens for chunk in chunks if chunk.usage]
    assert counts == ([2] if wished else [])


async def test_engine_that_dies_in_a_stream_raises(house: House, client: openai.AsyncOpenAI) -> None:
    async def script(connection: EngineConnection) -> None:
        connection.stream_head()
        connection.event(role(), token("a"))
        connection.reset()

    house.engine.then(script)
    answer = await client.chat.completions.create(model="demo", messages=MESSAGES, stream=True)
    with pytest.raises(openai.APIError, match="in the middle of its answer"):
        async for _ in answer:
            pass


async def test_errors_are_the_clients_own(house: House, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="Did you mean"):
        await client.chat.completions.create(model="dem", messages=MESSAGES)
    await house.know(healthy=False)
    with pytest.raises(openai.InternalServerError, match="engine-a"):
        await client.chat.completions.create(model="demo", messages=MESSAGES)


async def test_models_and_embeddings(house: House, client: openai.AsyncOpenAI) -> None:
    await house.know(route("vectors", candidate(), task="embed"))
    item = {"object": "embedding", "index": 0, "embedding": [0.5, 1.0]}
    house.engine.then(whole({"object": "list", "model": "v", "data": [item], "usage": {"prompt_tokens": 2}}))
    assert [model.id async for model in client.models.list()] == ["vectors"]
    assert (await client.models.retrieve("vectors")).id == "vectors"
    got = await client.embeddings.create(model="vectors", input="x", encoding_format="float")
    assert got.data[0].embedding == [0.5, 1.0]
    assert (await house.control.record()).prompt_tokens == 2
