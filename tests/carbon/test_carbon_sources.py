"""Sources of carbon intensity: what is asked, what is believed, and what stands in when one is silent."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from server.carbon import YEARLY_AVERAGES, CarbonIntensity, Known, open_sources, problems
from server.config import Config
from server.config.carbon import CarbonSettings
from server.errors import ConfigError
from server.units import Seconds
from tests.fakes.carbon_api import CarbonApi, raw
from tests.fakes.clock import FakeClock

pytestmark = pytest.mark.anyio

NOON = "2026-03-01T12:00:00Z"
NOON_S = 1_772_366_400.0
ENVIRON = {"TOKEN": "secret-token"}


def settings(*sources: Mapping[str, Any], **changes: Any) -> CarbonSettings:
    return CarbonSettings.model_validate({"sources": list(sources), **changes})


def http(api: CarbonApi, **changes: Any) -> dict[str, Any]:
    return {"kind": "http", "url": f"{api.url}/now?key=hidden", "path": "/data/0/intensity", **changes}


def said(grams: Any) -> dict[str, Any]:
    return {"data": [{"intensity": grams, "from": NOON}]}


class Rounds:
    """In the place of `asyncio.sleep`: a source waits until the test begins the next round."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self._paused = asyncio.Semaphore(0)
        self._go = asyncio.Semaphore(0)

    async def pause(self, seconds: float) -> None:
        self.waits.append(seconds)
        self._paused.release()
        await self._go.acquire()

    async def finished(self) -> None:
        """The round that runs has ended."""
        await asyncio.wait_for(self._paused.acquire(), 10)

    async def next(self) -> None:
        self._go.release()
        await self.finished()


class Followed:
    """A running `CarbonIntensity`."""

    def __init__(self, intensity: CarbonIntensity, rounds: Rounds, announced: list[str]) -> None:
        self.intensity = intensity
        self.rounds = rounds
        self.announced = announced

    @property
    def known(self) -> Known | None:
        return self.intensity.now()

    @property
    def refusals(self) -> dict[str, float | None]:
        return {
            labels[1]: value
            for name, labels, value in self.intensity.samples()
            if name == "wattgate_carbon_refusals_total"
        }


@asynccontextmanager
async def following(wanted: CarbonSettings, clock: FakeClock) -> AsyncIterator[Followed]:
    """After the first round."""
    rounds, announced = Rounds(), list[str]()
    sources = open_sources(wanted, ENVIRON)
    intensity = CarbonIntensity(sources, wanted, clock=clock, announce=announced.append, pause=rounds.pause)
    running = asyncio.ensure_future(intensity.run())
    try:
        await rounds.finished()
        yield Followed(intensity, rounds, announced)
    finally:
        running.cancel()
        await asyncio.wait([running])


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(wall=NOON_S)


@pytest.fixture
async def api() -> AsyncIterator[CarbonApi]:
    async with CarbonApi().running() as one:
        yield one


# --- what is asked ----------------------------------------------------------------------------------------------------


async def test_electricity_maps_is_asked_for_its_zone_with_the_token(api: CarbonApi, clock: FakeClock) -> None:
    api.then({"zone": "DE", "carbonIntensity": 302, "datetime": "2026-03-01T11:00:00.000Z", "isEstimated": True})
    source = {"kind": "electricity_maps", "zone": "DE", "token_env": "TOKEN", "url": f"{api.url}/v3"}
    async with following(settings(source), clock) as followed:
        assert followed.known == Known(302.0, "electricity_maps:DE", "average", Seconds(3600.0))
    assert api.requests[0].startswith("GET /v3/carbon-intensity/latest?zone=DE HTTP/1.1")
    assert "\r\nauth-token: secret-token\r\n" in api.requests[0]


async def test_answer_for_another_zone_is_refused(api: CarbonApi, clock: FakeClock) -> None:
    api.then({"zone": "FR", "carbonIntensity": 50, "datetime": NOON})
    source = {"kind": "electricity_maps", "zone": "DE", "token_env": "TOKEN", "url": api.url}
    async with following(settings(source), clock) as followed:
        assert (followed.known, followed.refusals) == (None, {"nonsense": 1})


async def test_any_url_is_a_source_with_a_pointer_a_scale_and_headers(api: CarbonApi, clock: FakeClock) -> None:
    api.then({"a/b": [{"~": 0.25}], "at": NOON_S - 60})
    source = http(
        api, path="/a~1b/0/~0", scale=1000, time_path="/at", headers_env={"x-key": "TOKEN"}, signal="marginal"
    )
    async with following(settings(source), clock) as followed:
        assert followed.known == Known(250.0, "http:127.0.0.1", "marginal", Seconds(60.0))
    assert "\r\nx-key: secret-token\r\n" in api.requests[0]


async def test_variable_that_is_not_set_silences_its_source_and_is_a_problem_before_the_start(
    api: CarbonApi, clock: FakeClock
) -> None:
    api.then(said(100))
    wanted = settings(http(api, headers_env={"x-key": "MISSING"}), grams_per_kwh=400)
    async with following(wanted, clock) as followed:
        assert followed.known == Known(400.0, "configured", "average", None)
        assert "MISSING" in followed.announced[0]
    assert api.requests == []
    assert [where for where, message in problems(wanted, ENVIRON) if "MISSING" in message] == ["carbon.sources[0]"]
    assert list(problems(wanted, {"MISSING": "x"})) == []


# --- what is believed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (raw(b"<html>"), "nonsense"),
        (raw(b"[" * 100_000), "nonsense"),
        (raw(b" " * (2**20 + 1)), "nonsense"),
        (said("about 300"), "nonsense"),
        (said(True), "nonsense"),
        (said(None), "nonsense"),
        (said(-1), "nonsense"),
        (said(5000.1), "nonsense"),
        (said(10**400), "nonsense"),
        ({"data": []}, "nonsense"),
        ({"data": 3}, "nonsense"),
        ([], "nonsense"),
        (raw(b"{}", status=500), "unreachable"),
        (raw(b"{}", status=302), "unreachable"),
        (raw(b"{}", status=401), "unreachable"),
        (b"SSH-2.0-OpenSSH\r\n", "unreachable"),
        (b"", "unreachable"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", "unreachable"),
        ({"data": [{"intensity": 300, "from": "yesterday"}]}, "nonsense"),
        ({"data": [{"intensity": 300, "from": "2026-03-01T05:59:59Z"}]}, "stale"),
        ({"data": [{"intensity": 300, "from": "2019-01-01T00:00:00"}]}, "stale"),
        ({"data": [{"intensity": 300, "from": "2026-03-01T14:00:01Z"}]}, "nonsense"),
        ({"data": [{"intensity": 300, "from": 1e300}]}, "nonsense"),
    ],
)
async def test_nonsense_is_refused_counted_said_once_and_the_last_value_stays(
    api: CarbonApi, clock: FakeClock, answer: Any, reason: str
) -> None:
    api.then(said(200), answer)
    async with following(settings(http(api, time_path="/data/0/from")), clock) as followed:
        await followed.rounds.next()
        await followed.rounds.next()
        assert followed.known == Known(200.0, "http:127.0.0.1", "average", Seconds(0.0))
        assert followed.refusals == {reason: 2}
        assert len(followed.announced) == 1
        assert "hidden" not in followed.announced[0]


async def test_older_value_than_the_last_is_stale(api: CarbonApi, clock: FakeClock) -> None:
    api.then(said(200), {"data": [{"intensity": 300, "from": "2026-03-01T11:00:00Z"}]})
    async with following(settings(http(api, time_path="/data/0/from")), clock) as followed:
        await followed.rounds.next()
        assert followed.refusals == {"stale": 1}


async def test_zero_grams_are_an_intensity(api: CarbonApi, clock: FakeClock) -> None:
    api.then(said(0))
    async with following(settings(http(api), grams_per_kwh=400), clock) as followed:
        assert followed.known is not None
        assert followed.known.grams_per_kwh == 0.0


async def test_silent_source_is_given_up_after_its_bound(api: CarbonApi, clock: FakeClock) -> None:
    api.then(None)
    async with following(settings(http(api), timeout_s=0.05), clock) as followed:
        assert followed.refusals == {"unreachable": 1}


async def test_failures_are_tried_again_sooner_and_ever_later_up_to_the_interval(
    api: CarbonApi, clock: FakeClock
) -> None:
    api.then(said(1), *[raw(b"", status=503)] * 7, said(2))
    async with following(settings(http(api)), clock) as followed:
        for _ in range(8):
            await followed.rounds.next()
        assert followed.rounds.waits == [900, 30, 60, 120, 240, 480, 900, 900, 900]
        assert followed.announced[-1].endswith("it answers again")
        assert len(followed.announced) == 2


# --- the order --------------------------------------------------------------------------------------------------------


async def test_live_then_last_known_with_its_age_then_the_table_then_the_constant_then_unknown(
    api: CarbonApi, clock: FakeClock
) -> None:
    api.then(said(250), raw(b"", status=503))
    table = {"kind": "static", "zone": "DE"}
    async with following(settings(table, http(api), max_age_s=7200, grams_per_kwh=400), clock) as followed:
        assert followed.known == Known(250.0, "http:127.0.0.1", "average", Seconds(0.0))
        await followed.rounds.next()
        clock.advance(7200)
        assert followed.known == Known(250.0, "http:127.0.0.1", "average", Seconds(7200.0))
        clock.advance(1)
        assert followed.known == Known(YEARLY_AVERAGES["DE"].grams_per_kwh, "static:DE:2023", "average", None)
    assert intensity_of(settings(grams_per_kwh=400), clock) == Known(400.0, "configured", "average", None)
    assert intensity_of(settings(), clock) is None


async def test_live_source_that_answers_goes_before_the_last_value_of_one_that_does_not(clock: FakeClock) -> None:
    async with CarbonApi().running() as first, CarbonApi().running() as second:
        first.then(said(100), raw(b"", status=503))
        second.then(said(200))
        async with following(settings(http(first), http(second)), clock) as followed:
            await followed.rounds.finished()  # both have had their first round
            assert followed.known is not None
            assert followed.known.grams_per_kwh == 100
            await followed.rounds.next()
            await followed.rounds.next()
            assert followed.known.grams_per_kwh == 200


def intensity_of(wanted: CarbonSettings, clock: FakeClock) -> Known | None:
    return CarbonIntensity(open_sources(wanted, {}), wanted, clock=clock, announce=lambda _line: None).now()


async def test_without_a_live_source_there_is_nothing_to_run(clock: FakeClock) -> None:
    wanted = settings(grams_per_kwh=1)
    await CarbonIntensity(open_sources(wanted), wanted, clock=clock).run()


async def test_unknown_intensity_is_absent_from_the_exposition(clock: FakeClock) -> None:
    wanted = settings()
    assert list(CarbonIntensity([], wanted, clock=clock).samples()) == []


async def test_exposition_names_source_and_kind(clock: FakeClock) -> None:
    wanted = settings({"kind": "static", "zone": "FR"})
    samples = {name: (labels, value) for name, labels, value in sampled(wanted, clock)}
    assert samples["wattgate_carbon_info"] == (("static:FR:2023", "average"), 1.0)
    assert samples["wattgate_carbon_intensity_grams_per_kwh"] == ((), 56.0)
    assert samples["wattgate_carbon_intensity_age_seconds"] == ((), None)


def sampled(wanted: CarbonSettings, clock: FakeClock) -> list[tuple[str, tuple[str, ...], float | None]]:
    return list(CarbonIntensity(open_sources(wanted), wanted, clock=clock).samples())


# --- the configuration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"sources": [{"kind": "electricity_maps", "zone": "DE"}]}, "needs `token_env`"),
        ({"sources": [{"kind": "http"}]}, "needs `path` and `url`"),
        ({"sources": [{"kind": "constant"}]}, "needs `grams_per_kwh`"),
        ({"sources": [{"kind": "static", "zone": "DE", "scale": 2}]}, "`scale` means nothing"),
        ({"sources": [{"kind": "http", "url": "ftp://x/", "path": "/a"}]}, "must look like"),
        ({"sources": [{"kind": "http", "url": "https://u:p@x/", "path": "/a"}]}, "must look like"),
        ({"sources": [{"kind": "http", "url": "https://x/", "path": "a.b"}]}, "pattern"),
        ({"sources": [{"kind": "oracle"}]}, "electricity_maps"),
        ({"interval_s": 299}, "300"),
        ({"pue": 0.9}, "1"),
        ({"devices": [{"device": "a", "embodied_kg": 1, "lifetime_years": 1}] * 2}, "two entries"),
    ],
)
def test_wrong_settings_are_told(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        CarbonSettings.model_validate(wrong)


@pytest.mark.parametrize(
    "stand_in", [{"sources": [{"kind": "static", "zone": "DE"}]}, {"grams_per_kwh": 400}], ids=["table", "constant"]
)
def test_average_never_stands_in_for_marginal(stand_in: dict[str, Any]) -> None:
    marginal = {"kind": "http", "url": "https://x/", "path": "/a", "signal": "marginal"}
    wrong = {**stand_in, "sources": [marginal, *stand_in.get("sources", [])]}
    with pytest.raises(ValidationError, match="cannot be added up"):
        CarbonSettings.model_validate(wrong)
    right = {"sources": [marginal, {"kind": "constant", "grams_per_kwh": 700, "signal": "marginal"}]}
    assert {source.signal for source in open_sources(CarbonSettings.model_validate(right))} == {"marginal"}


def test_settings_survive_the_way_through_json() -> None:
    wanted = settings({"kind": "static", "zone": "DE"}, {"kind": "constant", "grams_per_kwh": 3})
    assert CarbonSettings.model_validate_json(wanted.model_dump_json()) == wanted


def test_zone_that_the_table_does_not_have_is_refused_with_those_that_it_has() -> None:
    with pytest.raises(ConfigError, match="no zone 'ATLANTIS'; it has AT, AU"):
        open_sources(settings({"kind": "static", "zone": "ATLANTIS"}))
    assert list(problems(settings({"kind": "static", "zone": "ATLANTIS"}), {}))


def test_table_names_year_and_source_of_every_figure() -> None:
    for zone, average in YEARLY_AVERAGES.items():
        assert zone.isupper()
        assert average.year >= 2020
        assert len(average.source) > 10
        assert 0 < average.grams_per_kwh < 1000


async def test_contract_every_source_of_the_table_is_made_and_stays_silent_when_nobody_answers(
    clock: FakeClock,
) -> None:
    nowhere = "http://127.0.0.1:9"
    wanted = settings(
        {"kind": "electricity_maps", "zone": "DE", "token_env": "TOKEN", "url": nowhere},
        {"kind": "http", "url": nowhere, "path": "/x"},
        {"kind": "static", "zone": "DE"},
        {"kind": "constant", "grams_per_kwh": 1},
    )
    sources = open_sources(wanted, ENVIRON)
    assert [source.name for source in sources] == [
        "electricity_maps:DE",
        "http:127.0.0.1",
        "static:DE:2023",
        "configured",
    ]
    rounds = Rounds()
    intensity = CarbonIntensity(sources, wanted, clock=clock, announce=lambda _line: None, pause=rounds.pause)
    running = asyncio.ensure_future(intensity.run())
    await rounds.finished()
    await rounds.finished()
    running.cancel()
    await asyncio.wait([running])
    assert intensity.now() == Known(381.0, "static:DE:2023", "average", None)


def test_examples_of_the_documentation_are_valid_and_its_table_is_the_programs(root: Path) -> None:
    text = (root / "docs" / "carbon.md").read_text(encoding="utf-8")
    sections = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)]
    assert [sorted(section) for section in sections] == [["carbon"], ["carbon", "cost"], ["budgets"]]
    engine = {"name": "a", "model": "m", "precision": "bf16", "url": "http://host:1"}
    for section in sections:
        Config.model_validate({"engines": [engine], **section})
    figures = dict(re.findall(r"\b([A-Z]{2}|WORLD) (\d+)\b", text[text.index("### The static table") :]))
    assert figures == {zone: f"{average.grams_per_kwh:g}" for zone, average in YEARLY_AVERAGES.items()}
