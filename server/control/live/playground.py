"""One prompt to the gateway, and its answer as it comes: the page may not ask another origin itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import httpx

from server.errors import UpstreamFailedError

__all__ = ["Answer", "Playground"]

_PATH: Final = "/v1/chat/completions"
_TIMEOUT: Final = httpx.Timeout(10.0, read=300.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the gateway answered; an error is passed on as it is."""

    status: int
    content_type: str
    data: AsyncIterator[bytes]


class Playground:
    """Asks as any client would, with the user's own key."""

    def __init__(self, gateway_url: str, *, verify: bool) -> None:
        self._url = f"{gateway_url.rstrip('/')}{_PATH}"
        self._verify = verify
        """Of the gateway's certificate: one for another name would not hold for loopback."""

    async def ask(self, body: dict[str, Any], *, key: str | None, request_id: str) -> Answer:
        """The gateway's answer, byte for byte. Raises `UpstreamFailedError` if it does not answer."""
        headers = {"x-request-id": request_id, "x-wattgate-energy": "include"}
        if key:
            headers["authorization"] = f"Bearer {key}"
        client = httpx.AsyncClient(timeout=_TIMEOUT, verify=self._verify, trust_env=False)
        try:
            request = client.build_request("POST", self._url, json=body, headers=headers)
            answer = await client.send(request, stream=True)
        except httpx.HTTPError as exc:
            await client.aclose()
            raise UpstreamFailedError(f"The gateway at {self._url} does not answer: {exc}.") from exc
        content_type = answer.headers.get("content-type", "application/octet-stream")
        return Answer(status=answer.status_code, content_type=content_type, data=_relay(client, answer))


async def _relay(client: httpx.AsyncClient, answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for data in answer.aiter_raw():
            yield data
    finally:
        await answer.aclose()
        await client.aclose()
