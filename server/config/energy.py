"""Settings of meters and of attribution."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from server.config.section import Settings

__all__ = ["EnergySettings", "MeterSettings"]


class MeterSettings(Settings):
    kind: str = Field(description="`nvml`, `rapl`, `cpu_estimate`, `remote` or `replay`: see server/energy.")
    idle_watts: float = Field(20.0, ge=0, le=10_000, description="cpu_estimate: power of the idle package, W.")
    watts_per_core: float = Field(8.0, ge=0, le=1000, description="cpu_estimate: power a busy core adds, W.")


class EnergySettings(Settings):
    meters: list[MeterSettings] | Literal["auto"] = Field(
        "auto", description="`auto`: NVML where there is a GPU, else cpu_estimate."
    )
    interval_s: float = Field(1.0, ge=0.2, le=60, description="Between two meter readings.")
    hold_s: float = Field(10.0, ge=0, le=600, description="Longest wait for running requests before a window closes.")
    idle: Literal["apart", "spread", "reserved"] = Field(
        "apart",
        description="Who bears idle joules: nobody (`apart`), tenants by their active joules of the last hour "
        "(`spread`), or tenants by `reserved` shares.",
    )
    reserved: dict[str, float] = Field(
        default_factory=dict, description="With `idle: reserved`: each tenant's share; what is left stays apart."
    )
