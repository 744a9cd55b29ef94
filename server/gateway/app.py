"""The gateway's HTTP surface: FastAPI for what is documented, a short way for inference."""

from __future__ import annotations

from math import ceil
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from server.errors import MethodNotAllowedError, NoCapacityError, NotFoundError, RequestError, UnknownModelError
from server.gateway.docs import inference_paths
from server.gateway.endpoints import ENDPOINTS
from server.gateway.openai.models import model_list, model_object
from server.gateway.path import serve
from server.gateway.worker import Worker
from server.units import Seconds
from server.wire import Snapshot

__all__ = ["Gateway", "create_app"]


class Gateway(FastAPI):
    """FastAPI, but requests for inference skip its middleware: their path is `server.gateway.path.serve`."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(
            title="Wattgate",
            description="An OpenAI-compatible gateway in front of several engines that says what each one costs.",
            redirect_slashes=False,
        )
        self._worker = worker
        self._inference = {path: endpoint for endpoint in ENDPOINTS for path in endpoint.paths}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._inference.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None:
            await super().__call__(scope, receive, send)
        else:
            await serve(self._worker, endpoint, scope, receive, send)

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
    async def models() -> Response:
        return _json(200, model_list(_known(worker), since))

    @app.get("/v1/models/{model_id:path}", tags=["models"], summary="One id and its facts")
    async def model(model_id: str) -> Response:
        route = _known(worker).routes.get(model_id)
        if route is None:
            raise UnknownModelError(
                f"There is no model `{model_id}`; `GET /v1/models` lists what is served.", param="model"
            )
        return _json(200, model_object(route, since))

    app.add_exception_handler(RequestError, _answer_error)
    app.add_exception_handler(HTTPException, _answer_error)
    app.add_exception_handler(Exception, _answer_error)
    return app


def _known(worker: Worker) -> Snapshot:
    if worker.router.snapshot is None:
        raise NoCapacityError(
            "The gateway is starting and does not know its engines yet. Try again in a moment.",
            retry_after=Seconds(1.0),
        )
    return worker.router.snapshot


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
    if isinstance(exc, HTTPException) and exc.status_code == 404:
        return _error(NotFoundError(f"There is nothing at {path}; /docs shows what there is."))
    if isinstance(exc, HTTPException) and exc.status_code == 405:
        return _error(MethodNotAllowedError(f"{method} is not possible at {path}; /docs shows what is."))
    return _error(RequestError("The gateway failed; this is a defect. Its log says more."))


def _error(error: RequestError, more: dict[str, Any] | None = None) -> Response:
    response = _json(error.status, {**error.body(), **(more or {})})
    if error.retry_after is not None:
        response.headers["retry-after"] = str(max(1, ceil(error.retry_after)))
    return response


def _json(status: int, content: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")
