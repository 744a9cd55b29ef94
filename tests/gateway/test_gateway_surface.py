"""The documented surface: state, models, errors, OpenAPI."""

from __future__ import annotations

import pytest

from server.gateway.endpoints import ENDPOINTS
from tests.gateway.house import House, candidate, open_house, replica, route

pytestmark = pytest.mark.anyio


async def test_worker_is_healthy_before_and_ready_only_after_an_engine_is() -> None:
    async with open_house() as house:
        assert (await house.client.get("/health")).status_code == 200
        early = await house.client.get("/ready")
        assert (early.status_code, "retry-after" in early.headers) == (503, True)
        assert "no routing table" in early.json()["error"]["message"]
        await house.know(healthy=False)
        waiting = await house.client.get("/ready")
        assert waiting.status_code == 503
        assert waiting.json()["engines"] == {"engine-a": "not ready"}
        assert "engine-a" in waiting.json()["error"]["message"]
        await house.know()
        assert (await house.client.get("/ready")).json() == {"status": "ready", "engines": {"engine-a": "ready"}}


async def test_models_are_listed_with_their_facts_and_only_if_every_engine_has_them(house: House) -> None:
    card = {"precision": "int4", "parameters": 7, "size_bytes": 9, "id": "forged"}
    routes = [route("demo:int4", candidate(), card=card), route("json", candidate(), listed=False)]
    await house.know(*routes)
    listing = (await house.client.get("/v1/models")).json()
    assert listing["object"] == "list"
    (one,) = listing["data"]
    assert (one["id"], one["object"], one["precision"], one["parameters"]) == ("demo:int4", "model", "int4", 7)
    assert isinstance(one["created"], int)


async def test_one_model_is_found_by_an_id_with_slashes_and_colons(house: House) -> None:
    await house.know(route("org/big:fp8", candidate()))
    assert (await house.client.get("/v1/models/org/big:fp8")).json()["id"] == "org/big:fp8"
    missing = await house.client.get("/v1/models/org/small")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


async def test_models_before_the_first_table_are_a_503() -> None:
    async with open_house() as house:
        response = await house.client.get("/v1/models")
        assert (response.status_code, response.json()["error"]["code"]) == (503, "no_capacity")


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("POST", "/v1/models", 405),
        ("PUT", "/health", 405),
    ],
)
async def test_wrong_path_or_verb_is_told_in_openais_form(house: House, verb: str, path: str, status: int) -> None:
    response = await house.client.request(verb, path)
    assert response.status_code == status
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert path in response.json()["error"]["message"]


async def test_all_routes_are_described(house: House) -> None:
    schema = (await house.client.get("/openapi.json")).json()
    expected = {path for endpoint in ENDPOINTS for path in endpoint.paths}
    assert expected | {"/health", "/ready", "/v1/models", "/v1/models/{model_id}"} == set(schema["paths"])
    for path in schema["paths"].values():
        for operation in path.values():
            assert operation["summary"]
    assert (await house.client.get("/docs")).status_code == 200


async def test_snapshot_moves_requests_to_a_replicas_new_address(house: House) -> None:
    await house.chat()
    await house.know(replicas=[replica(1)])
    assert (await house.chat()).status_code == 502
    await house.know()
    assert (await house.chat()).status_code == 200
