"""Asks the live sources for the carbon intensity, and chooses among all that are known."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, NamedTuple

import httpx

from server.carbon.source import FixedSource, LiveSource, Reading, Source
from server.clock import Clock
from server.config.carbon import MAX_GRAMS_PER_KWH, CarbonSettings, Signal
from server.console import say
from server.errors import CarbonSourceError
from server.telemetry.sources import Sample
from server.units import Seconds

__all__ = ["CarbonIntensity", "Known"]

_FIRST_RETRY: Final = 30.0
"""Seconds; doubles with each failure up to `carbon.interval_s`."""
_MAX_AHEAD: Final = 7200.0
"""An hourly value may be stated for the hour to come, and clocks differ; what lies further ahead is an error."""


class Known(NamedTuple):
    """The carbon intensity that counts now."""

    grams_per_kwh: float
    source: str
    kind: Signal
    age: Seconds | None
    """Of a live source's value; None: a figure that does not change."""


class _Followed:
    """A live source, and the last of its values that was believed."""

    def __init__(self, source: LiveSource) -> None:
        self.source = source
        self.failures = 0
        """In a row."""
        self.grams_per_kwh = 0.0
        self.of: Seconds | None = None
        """The monotonic time that the value is of; None: there is none."""
        self.stated_at: Seconds | None = None


class CarbonIntensity:
    """Live sources that answer, then their last values up to `carbon.max_age_s`, then what is fixed; else unknown."""

    def __init__(
        self,
        sources: Sequence[Source],
        settings: CarbonSettings,
        *,
        clock: Clock,
        announce: Callable[[str], None] = say,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._announce = announce
        self._pause = pause
        self._live = [_Followed(source) for source in sources if not isinstance(source, FixedSource)]
        self._fixed = [source for source in sources if isinstance(source, FixedSource)]
        self._refusals: Counter[tuple[str, str]] = Counter()

    async def run(self) -> None:
        """Ask the live sources until cancelled; returns at once if there are none."""
        if not self._live:
            return
        async with httpx.AsyncClient(timeout=self._settings.timeout_s) as http, asyncio.TaskGroup() as tasks:
            for followed in self._live:
                tasks.create_task(self._follow(followed, http))

    def now(self) -> Known | None:
        """What counts at this moment; None: nothing is known."""
        now = self._clock.monotonic()
        for followed in sorted(self._live, key=lambda one: one.failures > 0):
            if followed.of is not None and now - followed.of <= self._settings.max_age_s:
                source = followed.source
                return Known(followed.grams_per_kwh, source.name, source.signal, Seconds(now - followed.of))
        return next((Known(one.grams_per_kwh, one.name, one.signal, None) for one in self._fixed), None)

    def samples(self) -> Iterator[Sample]:
        """For the exposition; on any thread."""
        known = self.now()
        if known is not None:
            yield "wattgate_carbon_intensity_grams_per_kwh", (), known.grams_per_kwh
            yield "wattgate_carbon_intensity_age_seconds", (), known.age
            yield "wattgate_carbon_info", (known.source, known.kind), 1.0
        for labels, count in sorted(self._refusals.copy().items()):
            yield "wattgate_carbon_refusals_total", labels, count

    async def _follow(self, followed: _Followed, http: httpx.AsyncClient) -> None:
        while True:
            await self._ask(followed, http)
            retry = _FIRST_RETRY * 2.0 ** min(followed.failures - 1, 20)
            await self._pause(min(retry, self._settings.interval_s) if followed.failures else self._settings.interval_s)

    async def _ask(self, followed: _Followed, http: httpx.AsyncClient) -> None:
        try:
            # httpx bounds each read; a server that dribbles must not hold us longer than one bound in all.
            async with asyncio.timeout(self._settings.timeout_s):
                reading = await followed.source.read(http)
            self._believe(followed, reading)
        except CarbonSourceError as exc:
            self._refuse(followed, str(exc), exc.reason)
        except TimeoutError:
            self._refuse(followed, f"no answer within {self._settings.timeout_s:g} s", "unreachable")

    def _believe(self, followed: _Followed, reading: Reading) -> None:
        """Keep the value; raises `CarbonSourceError` if it is impossible or too old."""
        grams, stated = reading
        if not 0 <= grams <= MAX_GRAMS_PER_KWH:  # NaN is not either
            raise CarbonSourceError(f"{grams:g} gCO2e/kWh is no carbon intensity", reason="nonsense")
        age = 0.0 if stated is None else self._clock.wall() - stated
        if not age >= -_MAX_AHEAD:
            raise CarbonSourceError("its value is of a time to come", reason="nonsense")
        if age > self._settings.max_age_s or (stated or 0.0) < (followed.stated_at or 0.0):
            raise CarbonSourceError(f"its value is {age / 3600:.1f} h old", reason="stale")
        followed.grams_per_kwh, followed.stated_at = grams, stated
        followed.of = Seconds(self._clock.monotonic() - max(0.0, age))
        if followed.failures:
            followed.failures = 0
            self._announce(f"carbon intensity from {followed.source.name}: it answers again")

    def _refuse(self, followed: _Followed, problem: str, reason: str) -> None:
        self._refusals[followed.source.name, reason] += 1
        followed.failures += 1
        if followed.failures == 1:
            self._announce(
                f"carbon intensity from {followed.source.name}: {problem}; its last value counts while it is young "
                "enough, then the next source"
            )
