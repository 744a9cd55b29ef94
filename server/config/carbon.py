"""Settings of carbon, cost and budgets."""

from __future__ import annotations

from pydantic import Field

from server.config.section import Settings

__all__ = ["BudgetSettings", "CarbonSettings", "CostSettings"]


class CarbonSettings(Settings):
    grams_per_kwh: float | None = Field(
        None, ge=0, le=5000, description="A constant carbon intensity of the electricity, gCO₂e/kWh."
    )


class CostSettings(Settings):
    price_per_kwh: float | None = Field(None, ge=0, le=1000, description="Of electricity, in `currency`.")
    currency: str = Field("EUR", pattern=r"^[A-Z]{3}$", description="ISO 4217.")


class BudgetSettings(Settings):
    tenant: str = Field(min_length=1, max_length=200, description="Whose.")
