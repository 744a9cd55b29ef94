"""Electricity Maps: the hourly average intensity of what a zone consumes.

Life-cycle emission factors, imports included. Source: Electricity Maps API reference, `/v3/carbon-intensity/latest`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from server.carbon.http_source import HttpSource
from server.config.carbon import CarbonSourceSettings
from server.errors import CarbonSourceError

__all__ = ["electricity_maps"]

_SERVER: Final = "https://api.electricitymaps.com/v3"


def electricity_maps(settings: CarbonSourceSettings, environ: Mapping[str, str] | None = None) -> HttpSource:
    """The zone's source; `url` replaces the server (up to the version)."""
    zone = settings.zone
    assert zone is not None
    assert settings.token_env is not None

    def check(document: Any) -> None:
        """For a zone that it has no data of, the API may answer for the caller's place."""
        said = document.get("zone") if isinstance(document, dict) else None
        if said != zone:
            raise CarbonSourceError(f"the answer is not for the zone {zone}", reason="nonsense")

    question = CarbonSourceSettings(
        kind="http",
        url=f"{(settings.url or _SERVER).rstrip('/')}/carbon-intensity/latest?zone={zone}",
        path="/carbonIntensity",
        time_path="/datetime",
        headers_env={"auth-token": settings.token_env},
    )
    return HttpSource(question, environ, name=f"electricity_maps:{zone}", check=check)
