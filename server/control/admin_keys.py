"""The admin API's part for keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from server.config.section import Name
from server.config.settings import ModelId
from server.control.keys import Key, KeyKind, NewKey

if TYPE_CHECKING:
    from server.control.app import ControlPlane

__all__ = ["CreateKey", "add_keys", "key_view"]


class CreateKey(BaseModel):
    """A new key. Tenant, models, priority and limits mean something for clients only."""

    model_config = ConfigDict(extra="forbid")

    kind: KeyKind = Field(KeyKind.CLIENT, description="`client`: the gateway; `admin`: the control port; `metrics`.")
    tenant: Name = Field("default", description="Who is served; stands on metrics.")
    models: list[ModelId] | None = Field(None, min_length=1, max_length=1000, description="Default: all.")
    priority: int = Field(0, ge=-100, le=100, description="Admission: lower goes first.")
    requests_per_minute: int | None = Field(None, ge=1, le=10**9)
    tokens_per_minute: int | None = Field(None, ge=1, le=10**12)
    concurrency: int | None = Field(None, ge=1, le=10**6, description="Requests at the same time.")
    expires_in_days: float | None = Field(None, gt=0, le=36_500)

    def wanted(self) -> NewKey:
        values = self.model_dump()
        return NewKey(**{**values, "models": None if self.models is None else tuple(self.models)})


class RevokeKey(BaseModel):
    """The key opens nothing from now on."""

    model_config = ConfigDict(extra="forbid")

    id: str


def add_keys(app: FastAPI, plane: ControlPlane) -> None:
    """Add what makes, lists and revokes keys."""

    @app.get("/api/keys", summary="All keys that were ever made; never their secrets")
    async def keys() -> dict[str, Any]:
        return {"keys": [key_view(key, plane.clock.wall()) for key in plane.keys.listed()]}

    @app.post("/api/keys", status_code=201, summary="Make a key; its secret is shown this once")
    async def create(body: CreateKey) -> dict[str, Any]:
        key, secret = await plane.keys.create(body.wanted())
        return {**key_view(key, plane.clock.wall()), "secret": secret}

    @app.delete("/api/keys", summary="Revoke a key")
    async def revoke(body: RevokeKey) -> dict[str, Any]:
        return key_view(await plane.keys.revoke(body.id), plane.clock.wall())


def key_view(key: Key, now: float) -> dict[str, Any]:
    """A key as it is shown: no digest."""
    shown: dict[str, Any] = {name: getattr(key, name) for name in Key.__slots__ if name != "digest"}
    return {**shown, "kind": str(key.kind), "state": key.state(now)}
