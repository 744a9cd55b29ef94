"""Settings of carbon, cost and budgets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator, model_validator

from server.config.section import Settings

__all__ = [
    "MAX_GRAMS_PER_KWH",
    "BudgetSettings",
    "CarbonSettings",
    "CarbonSourceSettings",
    "CostSettings",
    "DevicePriceSettings",
    "EmbodiedSettings",
    "Period",
    "Signal",
    "variable",
]

MAX_GRAMS_PER_KWH: Final = 5000.0
"""No power station emits as much: beyond it a figure is in another unit, or an error."""

Signal = Literal["average", "marginal"]
"""Average: of all that generates. Marginal: of what would generate one more kWh."""

Period = Literal["hour", "day", "month"]

_HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,100}$")]

_NEEDS: Final[Mapping[str, frozenset[str]]] = {
    "electricity_maps": frozenset({"zone", "token_env"}),
    "http": frozenset({"url", "path"}),
    "static": frozenset({"zone"}),
    "constant": frozenset({"grams_per_kwh"}),
}
_MAY_HAVE: Final[Mapping[str, frozenset[str]]] = {
    "electricity_maps": frozenset({"url"}),
    "http": frozenset({"time_path", "scale", "headers_env", "signal"}),
    "static": frozenset(),
    "constant": frozenset({"signal"}),
}


class CarbonSourceSettings(Settings):
    kind: Literal["electricity_maps", "http", "static", "constant"] = Field(description="See server/carbon.")
    zone: str | None = Field(
        None,
        pattern=r"^[A-Z0-9][A-Za-z0-9-]{0,31}$",
        description="electricity_maps: its key of the zone; static: a country of the table in docs/carbon.md.",
    )
    token_env: str | None = Field(None, description="electricity_maps: environment variable with the API's token.")
    url: str | None = Field(None, description="http: what to GET; electricity_maps: another server of the same API.")
    path: str | None = Field(
        None, pattern=r"^(/[^/]*)+$", description="http: JSON pointer to the number: `/data/0/intensity/actual`."
    )
    time_path: str | None = Field(
        None,
        pattern=r"^(/[^/]*)+$",
        description="http: JSON pointer to the number's time (ISO 8601, or Unix time in seconds).",
    )
    scale: float = Field(1.0, gt=0, le=1e6, description="http: the number times this is in gCO₂e/kWh.")
    headers_env: dict[_HeaderName, str] = Field(
        default_factory=dict, description="http: headers to send, each with the environment variable of its value."
    )
    grams_per_kwh: float | None = Field(None, ge=0, le=MAX_GRAMS_PER_KWH, description="constant: gCO₂e/kWh.")
    signal: Signal = Field("average", description="http, constant: what the number is; never mixed in one list.")

    @field_validator("url")
    @classmethod
    def _url_of_a_server(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
            raise ValueError("must look like https://host/path, without a user; give keys by headers_env")
        _ = parts.port  # raises ValueError where it is out of range
        return value

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        fields = type(self).model_fields
        default = {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
        given = {name for name in fields if name != "kind" and getattr(self, name) != default[name]}
        if missing := _NEEDS[self.kind] - given:
            raise ValueError(f"a source of the kind {self.kind} needs {_listed(missing)}")
        if foreign := given - _NEEDS[self.kind] - _MAY_HAVE[self.kind]:
            raise ValueError(f"{_listed(foreign)} means nothing to a source of the kind {self.kind}; remove it")
        return self


class EmbodiedSettings(Settings):
    device: str = Field(
        min_length=1, max_length=200, description="As on `wattgate_device_energy_joules_total`; `*`: every metered one."
    )
    embodied_kg: float = Field(
        gt=0, le=1e9, description="Emissions of making the hardware and of its disposal, kgCO₂e (SCI: TE)."
    )
    lifetime_years: float = Field(gt=0, le=100, description="Expected life (SCI: EL).")
    resource_share: float = Field(
        1.0, gt=0, le=1, description="The part of that hardware that the engines have (SCI: RR/ToR)."
    )


class CarbonSettings(Settings):
    sources: list[CarbonSourceSettings] = Field(
        default_factory=list,
        description="Of the electricity's carbon intensity: live ones first, then the others, each in this order.",
    )
    grams_per_kwh: float | None = Field(
        None,
        ge=0,
        le=MAX_GRAMS_PER_KWH,
        description="A constant carbon intensity, gCO₂e/kWh, where no source knows one.",
    )
    pue: float = Field(
        1.0, ge=1, le=10, description="Power usage effectiveness: the building's energy for each joule of a device."
    )
    interval_s: float = Field(900.0, ge=300, le=86_400, description="Between two questions to a live source.")
    timeout_s: float = Field(10.0, gt=0, le=120, description="Longest wait for a live source's answer.")
    max_age_s: float = Field(
        21_600.0, ge=300, le=604_800, description="Age up to which the last value of a live source counts."
    )
    devices: list[EmbodiedSettings] = Field(default_factory=list, description="Embodied emissions, by device.")

    @model_validator(mode="after")
    def _one_signal(self) -> Self:
        signals = {source.signal for source in self.sources}
        if self.grams_per_kwh is not None:
            signals.add("average")
        if len(signals) > 1:
            raise ValueError(
                "average and marginal intensities cannot be added up: give all `sources` the same `signal` (an average "
                "one must not stand in for a marginal one; `grams_per_kwh`, static and electricity_maps are average)"
            )
        return self

    @model_validator(mode="after")
    def _devices_are_unique(self) -> Self:
        _refuse_twins([device.device for device in self.devices])
        return self


class DevicePriceSettings(Settings):
    device: str = Field(
        min_length=1, max_length=200, description="As on `wattgate_device_energy_joules_total`; `*`: every metered one."
    )
    price_per_hour: float = Field(gt=0, le=1e6, description="Of the device, used or not, in `currency`.")


class CostSettings(Settings):
    price_per_kwh: float | None = Field(None, ge=0, le=1000, description="Of electricity, in `currency`.")
    currency: str = Field("EUR", pattern=r"^[A-Z]{3}$", description="ISO 4217.")
    devices: list[DevicePriceSettings] = Field(default_factory=list, description="Prices by the hour, by device.")

    @model_validator(mode="after")
    def _devices_are_unique(self) -> Self:
        _refuse_twins([device.device for device in self.devices])
        return self


class BudgetSettings(Settings):
    tenant: str = Field(
        min_length=1, max_length=200, description="Whose; `*`: of every tenant that has no entry of its own."
    )
    period: Period = Field("day", description="When it begins anew, in UTC.")
    joules: float | None = Field(None, gt=0, le=1e18, description="Of the tenant's requests; idle does not count.")
    co2e_grams: float | None = Field(None, gt=0, le=1e15, description="Of the same joules.")
    tokens: int | None = Field(None, gt=0, le=10**18, description="Prompt and output.")
    soft: float = Field(0.8, gt=0, le=1, description="The part of a bound at which answers begin to say so.")
    hard: bool = Field(True, description="At the whole bound requests are a 429; else answers only say so.")

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if self.joules is None and self.co2e_grams is None and self.tokens is None:
            raise ValueError("needs at least one bound: `joules`, `co2e_grams` or `tokens`")
        return self


def variable(name: str, environ: Mapping[str, str] | None = None) -> str | None:
    """The secret in this environment variable; None: there is none, or it cannot stand in a header."""
    environ = os.environ if environ is None else environ  # noqa: TID251  # configuration may read it
    value = environ.get(name, "").strip()
    return value if value.isascii() and value.isprintable() and value else None


def _listed(names: frozenset[str] | set[str]) -> str:
    return " and ".join(f"`{name}`" for name in sorted(names))


def _refuse_twins(devices: list[str]) -> None:
    twins = sorted({device for device in devices if devices.count(device) > 1})
    if twins:
        raise ValueError(f"two entries are for the device {twins[0]!r}; remove one")
