"""Settings of meters and of attribution."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from server.config.section import Name, Settings, base_url

__all__ = ["METER_TOKEN", "EnergySettings", "MeterSettings"]

METER_TOKEN: Final = "WATTGATE_METER_TOKEN"  # noqa: S105  # the variable's name

_ROUNDING = 1e-9
"""Shares such as 0.7, 0.2 and 0.1 do not add up to 1 exactly."""


class MeterSettings(Settings):
    kind: str = Field(description="`nvml`, `rapl`, `cpu_estimate`, `remote` or `replay`: see docs/meters.md.")
    idle_watts: float = Field(20.0, ge=0, le=10_000, description="cpu_estimate: power of the idle package, W.")
    watts_per_core: float = Field(8.0, ge=0, le=1000, description="cpu_estimate: power a busy core adds, W.")
    url: str | None = Field(
        None, description="remote: where `wattgate meter serve` listens on the other node, `http://host:port`."
    )
    name: Name | None = Field(
        None, description="remote: the other node's name, which begins the names of its devices; default: its host."
    )
    token_env: str = Field(
        METER_TOKEN, min_length=1, description="remote: environment variable with the other node's token."
    )
    path: Path | None = Field(
        None, description="replay: the recording. rapl: the powercap folder, if it is not /sys/class/powercap."
    )

    @field_validator("url")
    @classmethod
    def _url_of_a_node(cls, value: str | None) -> str | None:
        return None if value is None else base_url(value, like="http://host:port", key_in="token by token_env")

    @model_validator(mode="after")
    def _kinds_have_what_they_need(self) -> Self:
        if self.kind == "remote" and self.url is None:
            raise ValueError("a `remote` meter needs `url`: where `wattgate meter serve` listens on the other node")
        if self.kind == "replay" and self.path is None:
            raise ValueError("a `replay` meter needs `path`: the recording, as `wattgate meter watch --json` writes it")
        return self

    def token(self, environ: Mapping[str, str] | None = None) -> str | None:
        """The secret in the variable `token_env`; None: there is none."""
        environ = os.environ if environ is None else environ  # noqa: TID251  # configuration may read it
        return environ.get(self.token_env) or None


class EnergySettings(Settings):
    meters: list[MeterSettings] | Literal["auto"] = Field(
        "auto", description="`auto`: NVML and RAPL where they can be read, else cpu_estimate."
    )
    interval_s: float = Field(1.0, ge=0.2, le=60, description="Between two meter readings.")
    hold_s: float = Field(10.0, ge=0, le=600, description="Longest wait for running requests before a window closes.")
    method: str = Field(
        "automatic",
        description="How joules are shared out to requests: `automatic` takes the most exact method whose conditions "
        "hold; or always the one named here (docs/energy.md).",
    )
    idle: Literal["apart", "spread", "reserved"] = Field(
        "apart",
        description="Who bears idle joules: nobody (`apart`), tenants by their active joules of the last hour "
        "(`spread`), or tenants by `reserved` shares.",
    )
    reserved: dict[str, float] = Field(
        default_factory=dict,
        description="With `idle: reserved`: each tenant's share, 0 to 1; what is left of 1 stays apart.",
    )

    @model_validator(mode="after")
    def _shares_are_shares(self) -> Self:
        if bool(self.reserved) != (self.idle == "reserved"):
            raise ValueError("`idle: reserved` and the shares in `reserved` need one another; set both or neither")
        wrong = [tenant for tenant, share in self.reserved.items() if not 0 <= share <= 1]
        if wrong:
            raise ValueError(f"`reserved`: a share lies between 0 and 1; that of {', '.join(wrong)} does not")
        if sum(self.reserved.values()) > 1 + _ROUNDING:
            raise ValueError(f"`reserved`: the shares add up to {sum(self.reserved.values()):g}; make it at most 1")
        return self
