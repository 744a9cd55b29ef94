"""The page, its files, and what it asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from server.control.live.engine_log import last_lines
from server.control.live.feed import Feed
from server.control.live.playground import Playground
from server.errors import NotFoundError
from server.fleet import Replica

__all__ = ["add_live"]

_STATIC: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    "live.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "charts.js": "text/javascript; charset=utf-8",
    "format.js": "text/javascript; charset=utf-8",
    "playground.js": "text/javascript; charset=utf-8",
    "stream.js": "text/javascript; charset=utf-8",
    "tables.js": "text/javascript; charset=utf-8",
    "trace.js": "text/javascript; charset=utf-8",
    "vendor/uPlot.iife.min.js": "text/javascript; charset=utf-8",
    "vendor/uPlot.min.css": "text/css; charset=utf-8",
}
"""All that there is: a name never becomes a path."""
_GUARD: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_STREAM: Final = {"cache-control": "no-store", "x-accel-buffering": "no"}
_MAX_TOKENS: Final = 4096
_MAX_PROMPT: Final = 100_000


class Ask(BaseModel):
    """One prompt to one configuration."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1, max_length=300)
    prompt: str = Field(min_length=1, max_length=_MAX_PROMPT)
    max_tokens: int = Field(128, ge=1, le=_MAX_TOKENS)
    id: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="The request's id, by which it can be traced.")
    key: str | None = Field(None, max_length=300, description="A client's key, where the gateway asks for one.")


def add_live(
    app: FastAPI, feed: Feed, playground: Playground, replicas: Callable[[], list[Replica] | tuple[Replica, ...]]
) -> None:
    """Add the page at `/`, what it needs under `/live/`, and the API that it uses."""
    _add_page(app)

    @app.get("/api/live", summary="Server-sent events: the last 15 minutes, then a frame a second")
    async def live() -> StreamingResponse:
        return StreamingResponse(feed.listen(), media_type="text/event-stream", headers=_STREAM)

    @app.get("/api/engines/log", summary="The last lines of an engine's log")
    async def log(
        name: Annotated[str, Query(max_length=300)], lines: Annotated[int, Query(ge=1, le=1000)] = 50
    ) -> dict[str, Any]:
        found = next((replica for replica in replicas() if replica.name == name), None)
        if found is None:
            raise NotFoundError(f"There is no engine {name!r}; GET /api/status lists them.")
        if found.log_path is None:
            return {"name": name, "lines": None}
        return {"name": name, "lines": await asyncio.to_thread(last_lines, Path(found.log_path), lines)}

    @app.post("/api/playground", summary="Ask the gateway as a client would; its server-sent events as they come")
    async def ask(body: Ask) -> StreamingResponse:
        asked = {
            "model": body.model,
            "messages": [{"role": "user", "content": body.prompt}],
            "max_tokens": body.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        answer = await playground.ask(asked, key=body.key, request_id=body.id)
        return StreamingResponse(
            answer.data, status_code=answer.status, media_type=answer.content_type, headers=_STREAM
        )


def _add_page(app: FastAPI) -> None:
    files = {name: (_STATIC / name).read_bytes() for name in _TYPES}
    page = (_STATIC / "index.html").read_bytes()

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return Response(page, media_type="text/html; charset=utf-8", headers=_GUARD)

    @app.get("/live/{name:path}", include_in_schema=False)
    async def file(name: str) -> Response:
        data = files.get(name)
        if data is None:
            raise NotFoundError(f"There is no /live/{name[:100]}.")
        return Response(data, media_type=_TYPES[name], headers=_GUARD)
