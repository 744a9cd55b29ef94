"""One real Prometheus for the dashboards' tests: its start takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.exposition import Exposition
from tests.fakes.prometheus import Prometheus

DEAD_TARGET = "127.0.0.1:1"


@pytest.fixture(scope="session")
def prometheus() -> Iterator[Prometheus]:
    """Has scraped `tests.fakes.exposition` a few times; a second target never answers."""
    with (
        Exposition() as exposition,
        Prometheus(targets=[exposition.target, DEAD_TARGET], scrape_interval="200ms") as started,
    ):
        started.wait_for("count_over_time(wattgate_device_energy_joules_total[1m]) >= 5")
        yield started
