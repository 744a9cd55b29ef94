"""The live page's figures: rates of what was served, watts of what was accounted, and who may see them."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

import server.control.live as live_package
from server.control.live import Feed, FeedSources, Playground, add_live
from server.control.live.engine_log import last_lines
from server.telemetry.traffic import TrafficTotals
from server.telemetry.workers import WorkersNow
from server.units import Microjoules, Seconds
from tests.fakes.batches import replica
from tests.fakes.clock import FakeClock

pytestmark = pytest.mark.anyio

STATIC = Path(live_package.__file__).parent / "static"
ENGINE = ("cpu", "estimated", "demo-int8", "demo", "int8", "int8", "none")


@dataclass
class Plant:
    """What a gateway would have counted."""

    clock: FakeClock = field(default_factory=FakeClock)
    outcomes: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    active: int = 0
    idle: int = 0
    accounted_until: Seconds | None = None

    @property
    def accounts(self) -> dict[tuple[str, ...], Microjoules]:
        return {
            (*ENGINE, "active", "decode"): Microjoules(self.active),
            (*ENGINE, "idle", "none"): Microjoules(self.idle),
        }

    @property
    def devices(self) -> dict[tuple[str, str], Microjoules]:
        return {("cpu", "estimated"): Microjoules(self.active + self.idle)}

    @property
    def closed_until(self) -> Seconds | None:
        return self.accounted_until

    def totals(self) -> TrafficTotals:
        workers = WorkersNow(
            up={0: True}, in_flight=Counter({"demo-int8": 3}), queued=2, rejections={}, retries={}, records_dropped=0
        )
        return TrafficTotals(outcomes=dict(self.outcomes), output_tokens=self.tokens, workers=workers)

    def feed(self) -> Feed:
        sources = FeedSources(
            traffic=self.totals,
            energy=lambda: self,
            status=lambda: {"state": "ready"},
            carbon=lambda: None,
            table=lambda: {"rows": []},
        )
        return Feed(sources, self.clock)

    def second(self) -> None:
        self.clock.advance(1.0)


async def test_frame_tells_rates_since_the_one_before() -> None:
    plant = Plant()
    feed = plant.feed()
    assert feed.tick() is None
    plant.second()
    plant.outcomes.update(ok=4, upstream_error=1, client_error=2)
    plant.tokens += 50
    frame = feed.tick()
    assert frame is not None
    assert frame["served"] == {
        "at": plant.clock.wall(),
        "requests_per_s": 7.0,
        "errors_per_s": 1.0,
        "output_tokens_per_s": 50.0,
        "in_flight": 3,
        "queued": 2,
    }


async def test_watts_are_those_of_the_time_that_is_accounted_and_unknown_until_more_is() -> None:
    plant = Plant(accounted_until=Seconds(1000.0))
    feed = plant.feed()
    feed.tick()
    plant.second()
    frame = feed.tick()
    assert frame is not None
    assert frame["power"] is None, "nothing more was accounted: that is unknown, and not 0 W"
    plant.second()
    plant.active, plant.idle, plant.accounted_until = 30_000_000, 6_000_000, Seconds(1001.5)
    frame = feed.tick()
    assert frame is not None
    assert frame["power"]["watts"] == {"active": 20.0, "idle": 4.0, "unattributed": 0.0, "other": 0.0}
    assert frame["power"]["meter_watts"] == 24.0
    assert frame["power"]["at"] == plant.clock.wall() - 0.5


async def test_without_a_meter_there_are_no_watts() -> None:
    plant = Plant()
    feed = plant.feed()
    feed.tick()
    plant.second()
    frame = feed.tick()
    assert frame is not None
    assert frame["power"] is None


async def test_pause_of_the_machine_makes_no_frame() -> None:
    plant = Plant()
    feed = plant.feed()
    feed.tick()
    plant.clock.advance(60.0)
    assert feed.tick() is None


async def test_listener_gets_all_there_is_and_history_ends_after_fifteen_minutes() -> None:
    plant = Plant(accounted_until=Seconds(1000.0))
    feed = plant.feed()
    for _ in range(1000):
        feed.tick()
        plant.second()
        plant.tokens += 1
        plant.accounted_until = plant.clock.monotonic()
    heard = feed.listen()
    found = [parse(await anext(heard)) for _ in range(3)]
    await heard.aclose()  # type: ignore[attr-defined]
    assert [name for name, _ in found] == ["history", "status", "table"]
    history = found[0][1]
    assert 898 <= len(history["served"]) <= 901
    assert {one["output_tokens_per_s"] for one in history["served"]} == {1.0}
    assert len(history["power"]) >= 898


def parse(message: bytes) -> tuple[str, dict[str, Any]]:
    match = re.fullmatch(r"event: (\w+)\ndata: (.*)\n\n", message.decode())
    assert match
    return match[1], json.loads(match[2])


@pytest.fixture
def page(tmp_path: Path) -> httpx.AsyncClient:
    log = tmp_path / "e.log"
    log.write_text("\n".join(f"line {number}" for number in range(500)), encoding="utf-8")
    app = FastAPI()
    add_live(
        app,
        Plant().feed(),
        Playground("http://127.0.0.1:1", verify=False),
        lambda: [replica(name="e", log_path=str(log)), replica(name="elsewhere", log_path=None)],
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://page")


async def test_page_and_everything_it_names_is_served_from_here(page: httpx.AsyncClient) -> None:
    answer = await page.get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    named = re.findall(r'(?:src|href)="(/[^"]+)"', answer.text)
    scripts = [path.name for path in STATIC.glob("*.js")]
    assert named
    for path in [*named, *(f"/live/{name}" for name in scripts)]:
        assert (await page.get(path)).status_code == 200, path
    assert (await page.get("/live/../routes.py")).status_code == 404


def test_page_asks_nobody_else_and_is_small() -> None:
    files = [path for path in STATIC.rglob("*") if path.is_file() and path.suffix in {".html", ".css", ".js"}]
    assert sum(path.stat().st_size for path in files) <= 300_000
    for path in files:
        if path.parent.name != "vendor":
            assert "://" not in path.read_text(encoding="utf-8"), path


async def test_log_ends_with_the_newest_line(page: httpx.AsyncClient) -> None:
    answer = await page.get("/api/engines/log", params={"name": "e", "lines": 3})
    assert answer.json() == {"name": "e", "lines": ["line 497", "line 498", "line 499"]}
    assert (await page.get("/api/engines/log", params={"name": "elsewhere"})).json()["lines"] is None


def test_lines_of_a_file_that_is_not_there_are_none(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "no.log", 5) == []
