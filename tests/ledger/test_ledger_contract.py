"""What holds of the ledger, whatever database it lies in."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.accounts import Account, Phase, RecordKey
from server.ledger.period import Period
from server.wire import Outcome
from tests.fakes.batches import record, worker
from tests.fakes.clock import FakeClock
from tests.ledger.plane import BOUND, NO_RATES, RATES, energy_of, posting, running

pytestmark = pytest.mark.anyio

ALICE = worker("boot-a")
BOB = worker("boot-b", slot=1)
ALL = Period(0, 1e10)


async def test_record_and_energy_come_back_as_they_were(tmp_path: Path, url: str | None) -> None:
    clock = FakeClock(monotonic=1001.0, wall=1_800_000_001.0)
    async with running(tmp_path, url, clock) as plane:
        one = record(id="r/ü=%1", received_at=1000.0, queue_s=0.25, retries=1, cached_tokens=3)
        plane.take(ALICE, 1, [one])
        plane.post([energy_of(RecordKey("boot-a", 1, 0), 10, 20)], {}, RATES)
        await plane.written()
        (found,) = plane.ledger.queries.request("r/ü=%1")
    assert {name: found[name] for name in ("prompt_tokens", "cached_tokens", "output_tokens", "tokens_spared")} == {
        "prompt_tokens": 10,
        "cached_tokens": 3,
        "output_tokens": 5,
        "tokens_spared": None,
    }
    assert (found["received"], found["ended"]) == (1_800_000_000.0, 1_800_000_000.5)
    assert found["time_to_first_token_s"] == pytest.approx(0.1)
    assert (found["duration_s"], found["upstream_s"], found["queue_s"]) == (0.5, 0.5, 0.25)
    assert (found["tenant"], found["outcome"], found["streamed"], found["retries"]) == ("alice", "ok", True, 1)
    assert (found["prefill_uj"], found["decode_uj"], found["whole"]) == (10, 20, True)
    assert (found["scope"], found["method"], found["confidence"]) == ("gpu", "phase_time", 0.9)
    assert found["grams"] == pytest.approx(30e-6 * 1e-4)
    assert (found["cost"], found["currency"]) == (pytest.approx(30e-6 * 2e-8), "EUR")


async def test_what_is_unknown_stays_unknown(tmp_path: Path, url: str | None) -> None:
    async with running(tmp_path, url) as plane:
        plane.take(ALICE, 1, [record(engine=None, model=None, prompt_tokens=None, first_token_at=None, sent_at=None)])
        await plane.written()
        (found,) = plane.ledger.queries.request("r1")
        (group,) = plane.ledger.queries.energy(["engine"], ALL)
        assert plane.rows("SELECT prompt_tokens FROM usage_hours") == [(None,)]
    unknown = ("engine", "model", "prompt_tokens", "time_to_first_token_s", "upstream_s", "prefill_uj", "grams", "cost")
    assert {name: found[name] for name in unknown} == dict.fromkeys(unknown)
    assert group.labels == {"engine": "none"}
    assert "prompt_tokens" not in group.tokens
    assert group.booked is None
    assert group.grams is None


async def test_energy_without_rates_has_neither_grams_nor_cost(tmp_path: Path, url: str | None) -> None:
    async with running(tmp_path, url) as plane:
        plane.post([energy_of(RecordKey("boot-a", 1, 0))], {posting(): 100}, NO_RATES)
        plane.post([], {posting(): 50}, RATES)
        await plane.written()
        (group,) = plane.ledger.queries.energy(["tenant"], ALL)
    assert (group.booked, group.grams_of, group.cost_of) == (150, 50, 50)
    assert group.grams == pytest.approx(50e-6 * 1e-4)
    assert group.costs == {"EUR": pytest.approx(50e-6 * 2e-8)}


async def test_worker_hears_of_a_batch_only_once_it_is_in_the_database(tmp_path: Path, url: str | None) -> None:
    async with running(tmp_path, url) as plane:
        assert not plane.take(ALICE, 1, [record()])
        assert not plane.take(ALICE, 2)  # empty, and not before the one before it
        await plane.until(lambda: plane.acknowledged)
        assert plane.rows("SELECT seq FROM records") == [(1,)]
        assert plane.acknowledged[-1] == ("boot-a", 2)
        assert plane.take(ALICE, 3)  # nothing waits any more


async def test_batch_that_comes_again_is_counted_once(tmp_path: Path, url: str | None) -> None:
    async with running(tmp_path, url) as plane:
        for _ in range(2):
            plane.take(ALICE, 1, [record(id="a"), record(id="b")])
        await plane.written()
        assert plane.take(ALICE, 1, [record(id="a"), record(id="b")])
        await plane.written()
    async with running(tmp_path, url) as following:
        assert not following.take(ALICE, 1, [record(id="a"), record(id="b")])
        following.take(ALICE, 2, [record(id="c")])
        await following.written()
        assert sorted(following.rows("SELECT id FROM records")) == [("a",), ("b",), ("c",)]
        for table in ("usage_hours", "usage_days"):
            assert following.rows(f"SELECT sum(requests), sum(output_tokens) FROM {table}") == [(3, 15)]
        assert following.ledger.state().rows == 1
        assert following.ledger.state().lost == 0


async def test_first_energy_of_a_request_is_the_one_that_counts(tmp_path: Path, url: str | None) -> None:
    key = RecordKey("boot-a", 1, 0)
    async with running(tmp_path, url) as plane:
        plane.post([energy_of(key, 10, 20)], {}, RATES)
        plane.take(ALICE, 1, [record()])
        await plane.written()
    async with running(tmp_path, url) as following:
        following.post([energy_of(key, 1, 2)], {}, RATES)
        await following.written()
        (found,) = following.ledger.queries.request("r1")
        assert (found["prefill_uj"], found["decode_uj"]) == (10, 20)


async def test_energy_of_a_request_whose_record_comes_later_is_not_lost(tmp_path: Path, url: str | None) -> None:
    async with running(tmp_path, url) as plane:
        plane.post([energy_of(RecordKey("boot-a", 7, 0))], {}, RATES)
        await plane.written()
        plane.take(ALICE, 7, [record()])
        await plane.written()
        (found,) = plane.ledger.queries.request("r1")
        assert found["prefill_uj"] == 1000


async def test_record_that_the_database_refuses_holds_up_no_other(tmp_path: Path, url: str | None) -> None:
    async with running(tmp_path, url) as plane:
        await plane.until(lambda: plane.ledger.state().up)
        if url is None:
            plane.execute(
                "CREATE TRIGGER picky BEFORE INSERT ON records WHEN NEW.id LIKE 'bad%' "
                "BEGIN SELECT RAISE(ABORT, 'not this one'); END"
            )
        else:
            plane.execute("ALTER TABLE records ADD CHECK (id NOT LIKE 'bad%')")
        plane.take(ALICE, 1, [record(id=f"{'bad' if place in (3, 7) else 'good'}-{place}") for place in range(10)])
        await plane.written()
        assert plane.rows("SELECT count(*), sum(requests) FROM records, usage_hours")[0][0] == 8
        assert plane.rows("SELECT sum(requests) FROM usage_hours") == [(8,)]
        state = plane.ledger.state()
        assert (state.up, state.rows, state.lost, state.waiting) == (True, 8, 2, 0)
        assert plane.acknowledged[-1] == ("boot-a", 1)


async def test_odd_texts_and_numbers_are_no_trouble(tmp_path: Path, url: str | None) -> None:
    odd = "a\0b'\"; DROP TABLE records; -- \N{PILE OF POO}" + "x" * 1000
    async with running(tmp_path, url) as plane:
        plane.take(ALICE, 1, [record(id=odd, requested_model=odd, prompt_tokens=2**64, output_tokens=2**62)])
        await plane.written()
        (found,) = plane.ledger.queries.request(odd)
        assert plane.ledger.queries.request("a") == []
        assert plane.ledger.state().lost == 0
    assert len(found["requested_model"]) == 200
    assert (found["prompt_tokens"], found["output_tokens"]) == (None, None)


async def test_sums_can_be_asked_for_by_any_labels(tmp_path: Path, url: str | None) -> None:
    async with running(tmp_path, url) as plane:
        plane.take(
            ALICE,
            1,
            [
                record(tenant="acme", adapter="json"),
                record(tenant="acme", adapter="none", outcome=Outcome.CANCELLED, tokens_spared=7),
                record(tenant="zeta", adapter="json", prompt_tokens=None),
            ],
        )
        plane.post(
            [],
            {
                posting(tenant="acme", adapter="json", phase=Phase.PREFILL): 5,
                posting(tenant="acme", adapter="none"): 6,
                posting(tenant="zeta", adapter="json"): 100,
                posting(tenant="none", adapter="none", account=Account.IDLE, phase=Phase.NONE): 1000,
            },
            RATES,
        )
        await plane.written()
        tenants = plane.ledger.queries.energy(["tenant"], ALL)
        both = plane.ledger.queries.energy(["adapter", "tenant"], ALL)
    assert [(group.labels["tenant"], group.requests, group.ok) for group in tenants] == [
        ("zeta", 1, 1),
        ("acme", 2, 1),
        ("none", 0, 0),
    ]
    zeta, acme, nobody = tenants
    assert acme.energy == {"active": 11, "prefill": 5, "decode": 6}
    assert acme.tokens == {"prompt_tokens": 20, "cached_tokens": 0, "output_tokens": 10, "tokens_spared": 7}
    assert "prompt_tokens" not in zeta.tokens
    assert nobody.energy == {"idle": 1000}
    assert len(both) == 4


async def test_old_records_go_and_the_sums_stay(tmp_path: Path, url: str | None) -> None:
    clock = FakeClock()
    day = 86_400.0
    async with running(tmp_path, url, clock, retention_days=10) as plane:
        plane.take(ALICE, 1, [record(id=f"old-{place}") for place in range(7)])
        plane.post([energy_of(RecordKey("boot-a", 1, place)) for place in range(8)], {posting(): 24}, RATES)
        await plane.written()
        clock.advance(11 * day)
        plane.take(BOB, 1, [record(id="new", received_at=clock.monotonic(), ended_at=clock.monotonic())])
        await plane.until(lambda: plane.rows("SELECT id FROM records") == [("new",)])
        assert plane.rows("SELECT sum(requests) FROM usage_hours") == [(8,)]
        assert plane.rows("SELECT sum(energy_uj) FROM energy_days") == [(24,)]
        await plane.until(lambda: plane.rows("SELECT boot FROM workers") == [("boot-b",)])
        assert plane.rows("SELECT count(*) FROM energies") == [(0,)]  # nor that of a record that never came


async def test_lives_of_control_planes_are_told_apart(tmp_path: Path, url: str | None) -> None:
    lifetimes = []
    for number in (1, 2):
        async with running(tmp_path, url) as plane:
            lifetimes.append(plane.ledger.lifetime)
            plane.take(worker(f"boot-{number}"), 1, [record()] * number)
            plane.post([], {posting(): number}, RATES)
            await plane.written()
    sums = "SELECT lifetime, sum({}) FROM {} GROUP BY lifetime ORDER BY 2"
    assert plane.rows(sums.format("requests", "usage_hours")) == [(lifetimes[0], 1), (lifetimes[1], 2)]
    assert plane.rows(sums.format("energy_uj", "energy_hours")) == [(lifetimes[0], 1), (lifetimes[1], 2)]
    assert plane.rows("SELECT lifetime, count(*) FROM records GROUP BY lifetime ORDER BY 2") == [
        (lifetimes[0], 1),
        (lifetimes[1], 2),
    ]
    assert plane.rows("SELECT count(*) FROM lifetimes WHERE stopped IS NOT NULL AND version = '1.2.3'") == [(2,)]


async def test_export_gives_every_record_of_the_period_in_its_order(tmp_path: Path, url: str | None) -> None:
    clock = FakeClock(monotonic=0.0, wall=1_800_000_000.0)
    count = 4500  # more than two pages, with ties that lie over their borders
    async with running(tmp_path, url, clock) as plane:
        records = [record(id=f"r{n}", received_at=0.0, ended_at=float(n // 700)) for n in range(count)]
        for seq in range(1, 6):
            plane.take(ALICE, seq, records[(seq - 1) * 900 : seq * 900])
        await plane.written()
        within = Period(1_800_000_000.0, 1_800_000_006.0)
        found = [row["id"] for row in plane.ledger.queries.export(within)]
    assert found == [one.id for one in records if one.ended_at < 6]


async def test_stop_writes_what_waits(tmp_path: Path, url: str | None) -> None:
    async with running(tmp_path, url) as plane:
        plane.take(ALICE, 1, [record()])
        plane.post([], {posting(): 3}, RATES)
    assert plane.rows("SELECT count(*) FROM records") == [(1,)]
    assert plane.rows("SELECT sum(energy_uj) FROM energy_hours") == [(3,)]


async def test_first_flush_opens_the_database(tmp_path: Path, url: str | None) -> None:
    async with running(tmp_path, url) as plane:
        assert await plane.ledger.flush(BOUND)
        assert plane.ledger.state().up
        assert plane.ledger.queries.request("r1") == []
