"""The inference routes as OpenAPI describes them."""

from __future__ import annotations

from typing import Any

from server.gateway.endpoints import ENDPOINTS, Endpoint

__all__ = ["inference_paths"]

_ERRORS = {
    "400": "The request is malformed, or the model does another task",
    "401": "No API key, or nobody knows it",
    "403": "The key may not ask for this model",
    "404": "No such model, or its engine has no such endpoint",
    "413": "The body is too long",
    "429": "Too busy, or a limit or a budget is spent; `Retry-After` says when to come back",
    "502": "The engine failed",
    "503": "No engine is ready",
    "504": "The engine was too slow",
}

_ENERGY_WISH = {
    "name": "X-Wattgate-Energy",
    "in": "header",
    "required": False,
    "description": "`include`: say the provisional joules in the answer's usage, as `wattgate`.",
    "schema": {"type": "string", "enum": ["include"]},
}
_ENERGY_SAID = {
    "X-Wattgate-Energy-Joules": {
        "description": "What the request has used, provisionally; absent where it is not known, and on streams.",
        "schema": {"type": "number"},
    }
}


def inference_paths() -> dict[str, Any]:
    """OpenAPI path items of all inference endpoints, aliases included."""
    return {path: {"post": _operation(endpoint, path)} for endpoint in ENDPOINTS for path in endpoint.paths}


def _operation(endpoint: Endpoint, path: str) -> dict[str, Any]:
    alias = f" Same as `{endpoint.paths[0]}`." if path != endpoint.paths[0] else ""
    streamed = " With `stream: true` the answer is a stream of server-sent events." if endpoint.streams else ""
    return {
        "tags": ["inference"],
        "operationId": f"{endpoint.name}{path.replace('/', '_')}",
        "summary": endpoint.summary,
        "description": (
            f"For models with task {' or '.join(f'`{task}`' for task in sorted(endpoint.tasks))}.{alias}{streamed} "
            "The body goes to the engine as it is, fields unknown to the gateway included."
        ),
        "parameters": [_ENERGY_WISH],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _body(endpoint)}}},
        "responses": {
            "200": {"description": "What the engine answers", "headers": _ENERGY_SAID, "content": _content(endpoint)},
            **_failures(endpoint),
        },
    }


def _body(endpoint: Endpoint) -> dict[str, Any]:
    properties: dict[str, Any] = {name: {} for name in endpoint.needs}
    properties["model"] = {"type": "string", "description": "An id from `GET /v1/models`: `name` or `name:variant`."}
    if endpoint.streams:
        properties["stream"] = {"type": "boolean", "default": False}
        properties["stream_options"] = {"type": "object"}
    return {"type": "object", "required": list(endpoint.needs), "properties": properties, "additionalProperties": True}


def _content(endpoint: Endpoint) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if endpoint.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return content


def _failures(endpoint: Endpoint) -> dict[str, Any]:
    content = {"application/json": {"schema": endpoint.grammar.error_schema}}
    return {status: {"description": text, "content": content} for status, text in _ERRORS.items()}
