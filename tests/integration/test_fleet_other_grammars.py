"""The Responses and the Messages API, answered by real engines."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from tests.integration.fleet import THIRD, Fleet

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]

QUESTION = "What does json.dumps do?"
RESPONSE: dict[str, Any] = {"input": QUESTION, "max_output_tokens": 12, "temperature": 0, "ignore_eos": True}
MESSAGE: dict[str, Any] = {
    "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 12, "temperature": 0
}  # fmt: skip


def post(fleet: Fleet, path: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{fleet.gateway}{path}", json=body, timeout=60)


def events(fleet: Fleet, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """All events of a streamed answer; each must be named as its data says."""
    seen, name = [], ""
    with httpx.stream("POST", f"{fleet.gateway}{path}", json={**body, "stream": True}, timeout=60) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                seen.append(json.loads(line.removeprefix("data: ")))
                assert seen[-1]["type"] == name
    return seen


@pytest.mark.parametrize("model", ["demo:bf16", "demo:int8", f"demo:{THIRD}", f"json:{THIRD}"])
def test_response_names_what_served_it_and_has_its_usage(fleet: Fleet, model: str) -> None:
    answer = post(fleet, "/v1/responses", {"model": model, **RESPONSE})
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == model
    assert answer.json()["usage"]["output_tokens"] == 12


def test_streamed_response_ends_with_the_whole_and_equals_the_unstreamed_one(fleet: Fleet) -> None:
    seen = events(fleet, "/v1/responses", {"model": f"demo:{THIRD}", **RESPONSE})
    assert [event["type"] for event in seen[:2]] == ["response.created", "response.in_progress"]
    last = seen[-1]
    assert (last["type"], last["response"]["model"]) == ("response.completed", f"demo:{THIRD}")
    assert last["response"]["usage"]["output_tokens"] == 12
    text = "".join(event["delta"] for event in seen if event["type"] == "response.output_text.delta")
    whole = post(fleet, "/v1/responses", {"model": f"demo:{THIRD}", **RESPONSE}).json()
    assert text == whole["output"][0]["content"][0]["text"]


def test_official_client_gets_a_response(fleet: Fleet) -> None:
    with openai.OpenAI(base_url=f"{fleet.gateway}/v1", api_key="unused", max_retries=0) as client:
        answer = client.responses.create(
            model="demo", input=QUESTION, max_output_tokens=8, store=False, extra_body={"ignore_eos": True}
        )
        assert answer.model == "demo:bf16"
        assert answer.output_text
        with pytest.raises(openai.BadRequestError, match="stateless"):
            client.responses.create(model="demo", input=QUESTION, store=True)


@pytest.mark.parametrize("model", ["demo:bf16", "demo:int8", f"demo:{THIRD}", f"json:{THIRD}"])
def test_message_names_what_served_it_and_has_its_usage(fleet: Fleet, model: str) -> None:
    answer = post(fleet, "/v1/messages", {"model": model, **MESSAGE})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["type"], answer.json()["model"]) == ("message", model)
    assert 1 <= answer.json()["usage"]["output_tokens"] <= 12


def test_streamed_message_has_its_usage_and_equals_the_unstreamed_one(fleet: Fleet) -> None:
    seen = events(fleet, "/v1/messages", {"model": f"demo:{THIRD}", **MESSAGE})
    assert (seen[0]["type"], seen[0]["message"]["model"]) == ("message_start", f"demo:{THIRD}")
    assert [event["type"] for event in seen[-2:]] == ["message_delta", "message_stop"]
    text = "".join(event["delta"]["text"] for event in seen if event["type"] == "content_block_delta")
    whole = post(fleet, "/v1/messages", {"model": f"demo:{THIRD}", **MESSAGE}).json()
    assert text == whole["content"][0]["text"]
    assert seen[-2]["usage"]["output_tokens"] == whole["usage"]["output_tokens"]


def test_tokens_of_a_message_are_counted_as_the_engine_will_read_them(fleet: Fleet) -> None:
    body = {"model": f"demo:{THIRD}", "messages": MESSAGE["messages"]}
    counted = post(fleet, "/v1/messages/count_tokens", body).json()["input_tokens"]
    usage = post(fleet, "/v1/messages", {"model": f"demo:{THIRD}", **MESSAGE}).json()["usage"]
    assert counted == usage["input_tokens"] + usage.get("cache_read_input_tokens", 0)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/responses", {"model": "demo", "input": 7}, 400),
        ("/v1/responses", {"model": "demo:int3", "input": "x"}, 404),
        ("/v1/messages", {"model": "demo", "messages": [{"role": "nobody", "content": "x"}], "max_tokens": 4}, 400),
        ("/v1/messages", {"model": "demo", "messages": []}, 400),
        ("/v1/messages", {"model": "demo:int3", **MESSAGE}, 404),
    ],
)
def test_bad_request_gets_an_error_in_its_grammars_form(
    fleet: Fleet, path: str, body: dict[str, Any], status: int
) -> None:
    answer = post(fleet, path, body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["message"]
    if path == "/v1/messages":
        assert answer.json()["type"] == "error"
        assert error["type"] == {400: "invalid_request_error", 404: "not_found_error"}[status]
