"""The admin API, `/metrics` and the figures behind the tables."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from server.control.admin_efficiency import add_efficiency
from server.control.admin_keys import add_keys
from server.control.admin_ledger import add_ledger
from server.control.admin_runs import add_runs
from server.control.doors import Door
from server.control.live import Playground, add_live
from server.control.views import energy_view, status_view
from server.errors import BadRequestError, RequestError
from server.telemetry.summary import summarize

if TYPE_CHECKING:
    from server.control.app import ControlPlane

__all__ = ["create_admin"]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LoadAdapter(_Body):
    """Ask for an adapter on every replica of `model` that can take it."""

    name: str = Field(min_length=1, max_length=200, description="The public id, as clients will write it.")
    model: str = Field(description="The base model's public id.")
    path: str = Field(description="Folder with adapter_config.json, absolute, on the gateway's machine.")
    variants: list[str] | None = Field(
        None, min_length=1, description="Only on these variants; default: all that can take it."
    )


class UnloadAdapter(_Body):
    """Take an adapter from every replica."""

    name: str


class RestartEngine(_Body):
    """End a local engine and start it anew."""

    name: str


def create_admin(plane: ControlPlane) -> FastAPI:
    """The app on the control port."""
    app = FastAPI(title="Wattgate control", version=plane.version)
    app.add_exception_handler(RequestError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_body)
    _add_reading(app, plane)
    _add_acting(app, plane)
    add_keys(app, plane)
    add_ledger(app, plane.metering.ledger, clock=plane.clock, live=lambda: energy_view(plane))
    add_efficiency(app, plane.metering.efficiency)
    add_runs(app, plane.runs, plane.clock)
    gateway = plane.config.gateway
    add_live(app, plane.live, Playground(gateway.url, verify=False), plane.supervisor.replicas)
    app.add_middleware(Door, keys=plane.keys, settings=plane.config.control)
    return app


def _add_reading(app: FastAPI, plane: ControlPlane) -> None:
    @app.get("/health", summary="200 while the control plane runs")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics", summary="Prometheus text, or OpenMetrics by the Accept header")
    async def metrics(request: Request) -> Response:
        body, content_type = await plane.metrics(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    @app.get("/api/status", summary="Engines, adapters, workers")
    async def status() -> dict[str, Any]:
        return status_view(plane)

    @app.get("/api/adapters", summary="Adapters, and where each is")
    async def adapters() -> dict[str, Any]:
        return {"adapters": status_view(plane)["adapters"]}

    @app.get("/api/summary", summary="One row a configuration: requests, latency, tokens, joules")
    async def summary(
        by: Annotated[str, Query(description="Labels, comma-separated.")] = "variant,adapter",
    ) -> dict[str, Any]:
        try:
            rows = summarize(
                plane.metering.traffic.now(),
                plane.metering.energy.snapshot(),
                plane.supervisor.replicas(),
                by=by.split(","),
            )
        except ValueError as exc:
            raise BadRequestError(f"`by` names an unknown label: {exc}.", param="by") from exc
        return {"rows": [dataclasses.asdict(row) for row in rows]}


def _add_acting(app: FastAPI, plane: ControlPlane) -> None:
    # Ids stand in the body, never in the path: they may hold slashes and colons.
    @app.post("/api/adapters", status_code=201, summary="Load an adapter on every replica that can take it")
    async def load(body: LoadAdapter) -> dict[str, Any]:
        status = await plane.adapters.load(body.name, body.model, body.path, body.variants)
        return dataclasses.asdict(status)

    @app.delete("/api/adapters", summary="Take an adapter from every replica")
    async def unload(body: UnloadAdapter) -> dict[str, str]:
        await plane.adapters.unload(body.name)
        return {"name": body.name, "state": "unloaded"}

    @app.post("/api/engines/restart", status_code=202, summary="End a local engine and start it anew")
    async def restart(body: RestartEngine) -> dict[str, str]:
        await plane.supervisor.restart(body.name)
        return {"name": body.name, "state": "restarting"}


async def _refuse(_request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestError)
    return JSONResponse(exc.body(), status_code=exc.status)


async def _refuse_body(_request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestValidationError)
    first = exc.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    error = BadRequestError(f"{where or 'The body'}: {first['msg']}.", param=where or None)
    return JSONResponse(error.body(), status_code=error.status)
