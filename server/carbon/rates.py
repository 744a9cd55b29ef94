"""What a joule, and a second of a device, emits and costs."""

from __future__ import annotations

from typing import Final

from server.accounts import Rates
from server.carbon.intensity import Known
from server.config.carbon import CarbonSettings, CostSettings, DevicePriceSettings, EmbodiedSettings

__all__ = ["JOULES_PER_KWH", "embodied_grams_per_second", "price_per_second", "rates_of"]

JOULES_PER_KWH: Final = 3.6e6
_SECONDS_PER_HOUR: Final = 3600.0
_SECONDS_PER_YEAR: Final = 365 * 24 * _SECONDS_PER_HOUR
"""As SCI's own example counts them: four years are 4 · 365 · 24 hours."""
_GRAMS_PER_KG: Final = 1000.0


def rates_of(known: Known | None, carbon: CarbonSettings, cost: CostSettings) -> Rates:
    """What counts now: gCO₂e/J = PUE · g/kWh / 3.6e6; cost/J = price/kWh / 3.6e6."""
    price = cost.price_per_kwh
    return Rates(
        grams_per_joule=None if known is None else carbon.pue * known.grams_per_kwh / JOULES_PER_KWH,
        cost_per_joule=None if price is None else price / JOULES_PER_KWH,
        currency=cost.currency,
        source="none" if known is None else known.source,
        kind="none" if known is None else known.kind,
    )


def embodied_grams_per_second(settings: EmbodiedSettings) -> float:
    """M = TE · (TiR / EL) · (RR / ToR), for a time in reservation of one second.

    Source: Software Carbon Intensity (SCI) Specification 1.1, "Embodied emissions".
    """
    lifetime = settings.lifetime_years * _SECONDS_PER_YEAR
    return settings.embodied_kg * _GRAMS_PER_KG * settings.resource_share / lifetime


def price_per_second(settings: DevicePriceSettings) -> float:
    return settings.price_per_hour / _SECONDS_PER_HOUR
