"""What the control plane asks engines over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import httpx

from server.engines import Call, Engine
from server.fleet import EngineGauges
from server.units import Seconds

__all__ = ["EngineClient", "max_model_len"]

_TIMEOUT_S: Final = 5.0
_ADAPTER_TIMEOUT_S: Final = 60.0
_NOT_THERE: Final = frozenset({404, 405})
_ERROR_CHARS: Final = 500


class EngineClient:
    """One engine at one URL. Every question is bounded; "no answer" is False or None, never an exception."""

    def __init__(self, http: httpx.AsyncClient, engine: Engine, url: str, api_key: str | None) -> None:
        self._http = http
        self._engine = engine
        self._url = url
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}

    async def healthy(self) -> bool:
        """Whether the first health path that exists answers 2xx."""
        for path in self._engine.health_paths:
            response = await self._get(path)
            if response is None:
                return False
            if response.status_code not in _NOT_THERE:
                return response.is_success
        return False

    async def models(self) -> Mapping[str, Any] | None:
        """The answer of `GET /v1/models`; None if there is none."""
        body = _object(await self._get("/v1/models"))
        return body if body is not None and isinstance(body.get("data"), list) else None

    async def version(self) -> str | None:
        if self._engine.version_path is None:
            return None
        body = _object(await self._get(self._engine.version_path)) or {}
        version = body.get("version")
        return version if isinstance(version, str) else None

    async def gauges(self) -> EngineGauges | None:
        if self._engine.metrics_path is None:
            return None
        response = await self._get(self._engine.metrics_path)
        if response is None or not response.is_success:
            return None
        return self._engine.gauges(response.text)

    async def call(self, call: Call) -> str | None:
        """Make the engine do something; None if it did, else why not, in its own words."""
        try:
            async with asyncio.timeout(_ADAPTER_TIMEOUT_S):
                response = await self._http.post(
                    self._url + call.path, json=dict(call.body), headers=self._headers, timeout=_ADAPTER_TIMEOUT_S
                )
        except (httpx.HTTPError, TimeoutError) as exc:
            return f"it did not answer ({type(exc).__name__})"
        return None if response.is_success else _complaint(response)

    async def probe(self, call: Call, timeout: Seconds) -> bool:
        """Whether the engine answered this in time with anything but an error of its own (5xx)."""
        try:
            async with asyncio.timeout(timeout):
                response = await self._http.post(
                    self._url + call.path, json=dict(call.body), headers=self._headers, timeout=timeout
                )
        except (httpx.HTTPError, TimeoutError):
            return False
        return not response.is_server_error

    async def _get(self, path: str) -> httpx.Response | None:
        try:
            # httpx bounds each read; a server that dribbles must not hold us longer than one bound in all.
            async with asyncio.timeout(_TIMEOUT_S):
                return await self._http.get(self._url + path, headers=self._headers, timeout=_TIMEOUT_S)
        except (httpx.HTTPError, TimeoutError):
            return None


def max_model_len(models: Mapping[str, Any], name: str) -> int | None:
    """The longest context of the model `name`, else of the first that says one."""
    cards = [card for card in models["data"] if isinstance(card, dict)]
    cards.sort(key=lambda card: card.get("id") != name)
    found = (card.get("max_model_len") for card in cards)
    return next((value for value in found if isinstance(value, int)), None)


def _object(response: httpx.Response | None) -> dict[str, Any] | None:
    if response is None or not response.is_success:
        return None
    try:
        body = response.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _complaint(response: httpx.Response) -> str:
    """The engine's own message, wherever in its error object it stands."""
    try:
        body = response.json()
    except ValueError:
        body = None
    error = body.get("error", body) if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    text = message if isinstance(message, str) else response.text
    return f"{text.strip()[:_ERROR_CHARS] or 'no reason given'} (HTTP {response.status_code})"
