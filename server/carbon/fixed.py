"""Intensities that do not change: countries' yearly averages, and constants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from server.carbon.source import FixedSource
from server.config.carbon import CarbonSourceSettings
from server.errors import ConfigError

__all__ = ["YEARLY_AVERAGES", "YearlyAverage", "constant", "static"]

_OWID: Final = "Our World in Data, Carbon intensity of electricity generation (Ember; Energy Institute)"
_EMBER: Final = "Ember, Electricity generation emission intensity (July 2024)"
_EIA: Final = "EIA, State Electricity Profiles: 1,650 Mt CO2 of 4,230,672 GWh, direct emissions only"


class YearlyAverage(NamedTuple):
    """Of all electricity generated in a country in a year."""

    grams_per_kwh: float
    year: int
    source: str


YEARLY_AVERAGES: Final[Mapping[str, YearlyAverage]] = {
    "AT": YearlyAverage(111, 2023, _OWID),
    "AU": YearlyAverage(549, 2023, _OWID),
    "BE": YearlyAverage(138, 2023, _OWID),
    "BR": YearlyAverage(98, 2023, _OWID),
    "CA": YearlyAverage(170, 2023, _OWID),
    "CL": YearlyAverage(291, 2023, _OWID),
    "CN": YearlyAverage(582, 2023, _OWID),
    "CZ": YearlyAverage(450, 2023, _OWID),
    "DE": YearlyAverage(381, 2023, _OWID),
    "DK": YearlyAverage(152, 2023, _OWID),
    "FI": YearlyAverage(79, 2023, _OWID),
    "FR": YearlyAverage(56, 2023, _OWID),
    "GR": YearlyAverage(337, 2023, _OWID),
    "IE": YearlyAverage(291, 2023, _OWID),
    "IN": YearlyAverage(713, 2023, _OWID),
    "NO": YearlyAverage(30, 2023, _EMBER),
    "US": YearlyAverage(390, 2022, _EIA),
    "WORLD": YearlyAverage(481, 2023, _EMBER),
}
"""By ISO 3166 code. Figures of one source compare; between sources the methods differ (life cycle or direct)."""


def static(settings: CarbonSourceSettings, _environ: Mapping[str, str] | None = None) -> FixedSource:
    """A country's yearly average; its name says the year: `static:DE:2023`."""
    zone = settings.zone
    known = YEARLY_AVERAGES.get(zone) if zone is not None else None
    if known is None:
        raise ConfigError(
            f"carbon.sources: the static table has no zone {zone!r}; it has {', '.join(YEARLY_AVERAGES)}. For another "
            "place give a source of the kind `constant`."
        )
    return FixedSource(name=f"static:{zone}:{known.year}", signal="average", grams_per_kwh=known.grams_per_kwh)


def constant(settings: CarbonSourceSettings, _environ: Mapping[str, str] | None = None) -> FixedSource:
    """What the configuration says."""
    assert settings.grams_per_kwh is not None
    return FixedSource(name="configured", signal=settings.signal, grams_per_kwh=settings.grams_per_kwh)
