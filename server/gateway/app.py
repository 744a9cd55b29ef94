"""The gateway's HTTP surface beside inference."""

from __future__ import annotations

from math import ceil
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from server.errors import MethodNotAllowedError, NoCapacityError, NotFoundError, RequestError, UnknownModelError
from server.gateway.auth import visible
from server.gateway.docs import inference_paths
from server.gateway.endpoints import ENDPOINTS
from server.gateway.model_list import model_list, model_object
from server.gateway.worker import Worker
from server.units import Seconds
from server.wire import Snapshot

__all__ = ["Gateway", "create_app"]


_INFERENCE = frozenset(path for endpoint in ENDPOINTS for path in endpoint.paths)


class Gateway(FastAPI):
    """What is documented, except for inference: those requests never come here, see `server.gateway.connection`."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(
            title="Wattgate",
            description="An OpenAI-compatible gateway in front of several engines that says what each one costs.",
            redirect_slashes=False,
        )
        self._worker = worker
        if worker.settings.cors_origins:
            self.add_middleware(
                CORSMiddleware, allow_origins=worker.settings.cors_origins, allow_methods=["*"], allow_headers=["*"]
            )

    def openapi(self) -> dict[str, Any]:
        """The schema of all routes; the inference routes are described by their table."""
        if self.openapi_schema is None:
            super().openapi()["paths"].update(inference_paths())
        assert self.openapi_schema is not None
        return self.openapi_schema


def create_app(worker: Worker) -> Gateway:
    """The app of one worker. It keeps nothing of its own."""
    app = Gateway(worker)
    since = worker.clock.wall()

    @app.get("/health", tags=["state"], summary="Whether the worker serves")
    async def health() -> Response:
        return _json(200, {"status": "ok"})

    @app.get("/ready", tags=["state"], summary="Whether at least one engine can serve")
    async def ready() -> Response:
        snapshot = worker.router.snapshot
        engines = _engines(snapshot)
        if any(state == "ready" for state in engines.values()):
            return _json(200, {"status": "ready", "engines": engines})
        error = NoCapacityError(_why_not_ready(snapshot, engines), retry_after=Seconds(5.0))
        return _error(error, {"status": "not ready", "engines": engines})

    @app.get("/v1/models", tags=["models"], summary="All ids that clients may ask for")
    async def models(request: Request) -> Response:
        return _json(200, model_list(_known(worker, request), since))

    @app.get("/v1/models/{model_id:path}", tags=["models"], summary="One id and its facts")
    async def model(model_id: str, request: Request) -> Response:
        route = _known(worker, request).routes.get(model_id)
        if route is None:
            raise UnknownModelError(
                f"There is no model `{model_id}`; `GET /v1/models` lists what is served.", param="model"
            )
        return _json(200, model_object(route, since))

    app.add_exception_handler(RequestError, _answer_error)
    app.add_exception_handler(HTTPException, _answer_error)
    app.add_exception_handler(Exception, _answer_error)
    return app


def _known(worker: Worker, request: Request) -> Snapshot:
    """The routing table as far as the request's key may see it."""
    grant = worker.keys.holder_of(dict(request.headers.raw))
    if worker.router.snapshot is None:
        raise NoCapacityError(
            "The gateway is starting and does not know its engines yet. Try again in a moment.",
            retry_after=Seconds(1.0),
        )
    return visible(worker.router.snapshot, grant)


def _engines(snapshot: Snapshot | None) -> dict[str, str]:
    replicas = snapshot.replicas.values() if snapshot else ()
    return {replica.name: "ready" if replica.healthy else "not ready" for replica in replicas}


def _why_not_ready(snapshot: Snapshot | None, engines: dict[str, str]) -> str:
    if snapshot is None:
        return "The worker has no routing table yet: the control plane has not spoken. Try again in a moment."
    return f"No engine is ready; waiting for {', '.join(sorted(engines)) or 'the first one'}. See `wattgate status`."


async def _answer_error(request: Request, exc: Exception) -> Response:
    """Every error in OpenAI's form; one that nobody expected says nothing of the inside."""
    if isinstance(exc, RequestError):
        return _error(exc)
    path, method = request.url.path, request.method
    if path in _INFERENCE:
        return _error(MethodNotAllowedError(f"{method} is not possible at {path}; use POST."))
    if isinstance(exc, HTTPException) and exc.status_code == 404:
        return _error(NotFoundError(f"There is nothing at {path}; /docs shows what there is."))
    if isinstance(exc, HTTPException) and exc.status_code == 405:
        return _error(MethodNotAllowedError(f"{method} is not possible at {path}; /docs shows what is."))
    return _error(RequestError("The gateway failed; this is a defect. Its log says more."))


def _error(error: RequestError, more: dict[str, Any] | None = None) -> Response:
    response = _json(error.status, {**error.body(), **(more or {})})
    for name, value in error.headers:
        response.headers.append(name.decode(), value.decode())
    if error.retry_after is not None:
        response.headers["retry-after"] = str(max(1, ceil(error.retry_after)))
    return response


def _json(status: int, content: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")
