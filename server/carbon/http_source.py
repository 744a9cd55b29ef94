"""Carbon intensity from any URL that answers with JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import msgspec

from server.carbon.source import Reading
from server.config.carbon import CarbonSourceSettings, variable
from server.errors import CarbonSourceError
from server.units import Seconds

__all__ = ["HttpSource"]

_MAX_BYTES: Final = 2**20
_UNESCAPED: Final = (("~1", "/"), ("~0", "~"))
"""In this order; source: RFC 6901, section 4."""


class HttpSource:
    """One number of one document. It says nothing of the URL's path and query, which may hold a key."""

    def __init__(
        self,
        settings: CarbonSourceSettings,
        environ: Mapping[str, str] | None = None,
        *,
        name: str | None = None,
        check: Callable[[Any], None] = lambda _document: None,
    ) -> None:
        """`check` raises `CarbonSourceError` for a document that answers another question."""
        assert settings.url is not None
        assert settings.path is not None
        self._url = settings.url
        self._host = urlsplit(settings.url).hostname
        self._path, self._time_path = settings.path, settings.time_path
        self._scale = settings.scale
        self._headers = {header: variable(named, environ) for header, named in settings.headers_env.items()}
        self._variables = settings.headers_env
        self._check = check
        self.name = name or f"http:{self._host}"
        self.signal = settings.signal

    async def read(self, http: httpx.AsyncClient) -> Reading:
        document = await self._document(http)
        self._check(document)
        stated = None if self._time_path is None else _time(_at(document, self._time_path), self._time_path)
        return Reading(_number(_at(document, self._path), self._path) * self._scale, stated)

    async def _document(self, http: httpx.AsyncClient) -> Any:
        headers = {}
        for header, value in self._headers.items():
            if value is None:
                raise _unreachable(f"the environment variable {self._variables[header]} is not set")
            headers[header] = value
        try:
            async with http.stream("GET", self._url, headers=headers) as response:
                if not response.is_success:
                    raise _unreachable(f"{self._host} answered with the status {response.status_code}")
                body = await self._body(response)
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise _unreachable(f"{self._host} did not answer ({type(exc).__name__})") from exc
        try:
            return msgspec.json.decode(body)
        except (msgspec.MsgspecError, RecursionError) as exc:
            raise _nonsense(f"{self._host} answered with something other than JSON") from exc

    async def _body(self, response: httpx.Response) -> bytes:
        body = bytearray()
        async for part in response.aiter_bytes():
            body += part
            if len(body) > _MAX_BYTES:
                raise _nonsense(f"{self._host} answered with more than {_MAX_BYTES} bytes")
        return bytes(body)


def _at(document: Any, pointer: str) -> Any:
    """What the JSON pointer leads to."""
    found = document
    for part in pointer.split("/")[1:]:
        for escape, char in _UNESCAPED:
            part = part.replace(escape, char)  # noqa: PLW2901  # both escapes, one after the other
        if isinstance(found, dict) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        else:
            raise _nonsense(f"the answer has nothing at {pointer}")
    return found


def _number(found: Any, pointer: str) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise _nonsense(f"at {pointer} stands no number")
    try:
        return float(found)
    except OverflowError as exc:
        raise _nonsense(f"at {pointer} stands an impossible number") from exc


def _time(found: Any, pointer: str) -> Seconds:
    """Seconds since the Unix epoch; a time without a zone is taken as UTC."""
    if isinstance(found, str):
        try:
            moment = datetime.fromisoformat(found)
            return Seconds((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
        except (ValueError, OverflowError) as exc:
            raise _nonsense(f"at {pointer} stands no time") from exc
    return Seconds(_number(found, pointer))


def _unreachable(message: str) -> CarbonSourceError:
    return CarbonSourceError(message, reason="unreachable")


def _nonsense(message: str) -> CarbonSourceError:
    return CarbonSourceError(message, reason="nonsense")
