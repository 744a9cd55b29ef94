"""The ledger's sums of one process lifetime equal the counters that the process exports."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from server.config import TelemetrySettings
from server.telemetry import LabelCaps, Traffic
from server.wire import Outcome
from tests.fakes.batches import batch, record, worker
from tests.fakes.clock import FakeClock
from tests.ledger.plane import running

pytestmark = pytest.mark.anyio


async def test_sums_of_a_lifetime_equal_its_counters(tmp_path: Path, url: str | None) -> None:
    chance = random.Random(7)
    clock = FakeClock()
    traffic = Traffic(LabelCaps(TelemetrySettings(), clock))
    async with running(tmp_path, url, clock) as earlier:  # whose rows must not count
        earlier.take(worker("boot-before"), 1, [record()] * 3)
        await earlier.written()
    async with running(tmp_path, url, clock) as plane:
        for seq in range(1, 21):
            hello = worker(f"boot-{seq % 3}")
            records = [
                record(
                    tenant=chance.choice("abc"),
                    adapter=chance.choice(["none", "json"]),
                    engine=chance.choice([None, "demo-int4"]),
                    outcome=chance.choice(list(Outcome)),
                    prompt_tokens=chance.choice([None, 10, 20]),
                    output_tokens=chance.choice([None, 1, 300]),
                )
                for _ in range(chance.randrange(40))
            ]
            for _ in range(chance.choice([1, 1, 2])):  # some batches come twice
                one = batch(seq, records=records)
                traffic.take(one, hello)
                plane.ledger.take(one, hello)
            clock.advance(600.0)
        await plane.written()
        of_life = f"WHERE lifetime = '{plane.ledger.lifetime}'"
        names = "engine, model, variant, precision, adapter, outcome"
        rows = plane.rows(f"SELECT {names}, sum(requests) FROM usage_hours {of_life} GROUP BY {names}")
        kinds = ("prompt", "cached", "output")
        sums = ", ".join(f"sum({kind}_tokens)" for kind in kinds)
        tokens = plane.rows(f"SELECT tenant, {sums} FROM usage_hours {of_life} GROUP BY tenant")
    counters = traffic.now()
    assert {tuple(key): int(count) for *key, count in rows} == dict(counters.requests)
    found = Counter({(tenant, kind): int(n) for tenant, *ns in tokens for kind, n in zip(kinds, ns, strict=True)})
    assert found == Counter(counters.tenant_tokens)
