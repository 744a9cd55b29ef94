"""Carbon and cost: what a joule emits and costs, now.

source.py            the contract of a source of carbon intensity
electricity_maps.py  live, for a zone
http_source.py       live, from any URL that answers with JSON
fixed.py             a country's yearly average, or a constant
intensity.py         asks the live sources, and chooses
rates.py             intensity and prices → what a joule, and an hour of a device, emits and costs
footprint.py         postings of joules → counters of grams and money

To add a source: one file with a class that keeps `IntensitySource`'s or `FixedSource`'s contract, a line in `SOURCES`,
and its kind and fields in config/carbon.py.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from server.carbon.electricity_maps import electricity_maps
from server.carbon.fixed import YEARLY_AVERAGES, constant, static
from server.carbon.footprint import Footprint
from server.carbon.http_source import HttpSource
from server.carbon.intensity import CarbonIntensity, Known
from server.carbon.rates import rates_of
from server.carbon.source import FixedSource, LiveSource, MakeSource, Source
from server.config.carbon import CarbonSettings, CarbonSourceSettings, variable
from server.errors import ConfigError

__all__ = [
    "SOURCES",
    "YEARLY_AVERAGES",
    "CarbonIntensity",
    "FixedSource",
    "Footprint",
    "Known",
    "LiveSource",
    "Source",
    "open_sources",
    "problems",
    "rates_of",
]

SOURCES: Final[Mapping[str, MakeSource]] = {
    "electricity_maps": electricity_maps,
    "http": HttpSource,
    "static": static,
    "constant": constant,
}


def open_sources(settings: CarbonSettings, environ: Mapping[str, str] | None = None) -> list[Source]:
    """The sources that the configuration names; `carbon.grams_per_kwh` is the last. Reads nothing yet.

    Raises `ConfigError` for what no source can be made of. A variable of the environment that is not set is no such
    thing: that source stays silent (see `problems`).
    """
    sources = [SOURCES[source.kind](source, environ) for source in settings.sources]
    if settings.grams_per_kwh is not None:
        sources.append(FixedSource(name="configured", signal="average", grams_per_kwh=settings.grams_per_kwh))
    return sources


def problems(settings: CarbonSettings, environ: Mapping[str, str] | None = None) -> Iterator[tuple[str, str]]:
    """What is wrong with the sources on this machine: (where, what and what to do)."""
    for index, source in enumerate(settings.sources):
        where = f"carbon.sources[{index}]"
        try:
            SOURCES[source.kind](source, environ)
        except ConfigError as exc:
            yield where, str(exc)
        for name in _variables(source):
            if variable(name, environ) is None:
                yield where, f"The environment variable {name} is not set, or no header can hold it. Export it first."


def _variables(source: CarbonSourceSettings) -> list[str]:
    return [*([source.token_env] if source.token_env else []), *source.headers_env.values()]
