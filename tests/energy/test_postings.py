"""Postings, phases, idle bearers, prices, savings: what others take from the accountant."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from server.accounts import Account, Phase, Posting, RecordKey
from server.config import EnergySettings
from server.energy.attribution.token_share import TokenShare
from server.energy.idle import IdleBearers
from server.errors import ConfigError
from server.units import Microjoules, Seconds
from server.wire import Outcome
from tests.energy.house import House
from tests.fakes.batches import record, replica, tokens, worker
from tests.fakes.clock import FakeClock
from tests.fakes.meter import FakeMeter


def house(**settings: Any) -> House:
    built = House(**settings)
    built.tick()
    return built


def answer(house: House, id_: str = "r1", **fields: Any) -> None:
    """A request of half a second, ten output tokens, in the second that begins."""
    at = house.clock.monotonic()
    times = [at + 0.1 + 0.04 * place for place in range(10)]
    source = {name: fields[name] for name in ("tenant", "adapter", "engine") if name in fields}
    ended: dict[str, Any] = {
        "id": id_,
        "sent_at": at,
        "first_token_at": times[0],
        "upstream_done_at": times[-1],
        "ended_at": times[-1],
        "output_tokens": 10,
        "token_chunks": 10,
    }
    house.tell(at=at + 1.0, streams=[tokens(times, id=id_, sent_at=at, **source)], records=[record(**(ended | fields))])


def test_postings_are_what_the_counters_gained_under_uncapped_names_and_are_given_once() -> None:
    one = house(max_adapters=1)
    for tenant in ("a", "b"):
        answer(one, tenant, tenant=tenant, adapter=tenant)
    one.clock.advance(1.0)
    one.meter.use(8.0)
    one.accountant.tick()
    posted = one.accountant.take_postings()
    assert one.accountant.take_postings() == {}
    assert sum(posted.values()) == 8_000_000
    assert {(posting.tenant, posting.adapter) for posting in posted} == {("a", "a"), ("b", "b")}
    assert {key[6] for key in one.accountant.snapshot().accounts} == {"a", "other"}
    assert Posting(
        "gpu:0", "gpu", "demo-int4", "demo", "int4", "int4", "a", "a", Account.ACTIVE, Phase.DECODE
    ) in posted  # fmt: skip


def test_idle_joules_are_posted_under_no_tenant_and_no_phase() -> None:
    one = house()
    one.second(5.0)
    one.tell()
    one.tick()
    ((posting, energy),) = one.posted.items()
    assert (posting.engine, posting.tenant, posting.account, posting.phase) == ("demo-int4", "none", "idle", "none")
    assert energy == 5_000_000


def test_phases_of_the_accounts_and_of_the_requests_are_the_same() -> None:
    one = house()
    answer(one, prompt_tokens=500)
    one.second(6.0)
    (used,) = one.final
    assert used.prefill > 0 < used.decode
    assert one.accounts("account", "phase") == {
        ("active", "prefill"): used.prefill,
        ("active", "decode"): used.decode,
    }
    assert used.energy == 6_000_000
    one.check_law()


def test_request_is_known_by_its_record_wherever_it_stood_in_its_batch() -> None:
    one = house()
    never_sent = record(id="no", sent_at=None, engine=None, first_token_at=None)
    at = one.clock.monotonic()
    ended = [record(id=id_, sent_at=at, upstream_done_at=at + 0.5) for id_ in ("x", "y")]
    one.tell(at=at + 1.0, records=[never_sent, *ended])
    one.second(4.0)
    assert [(used.id, used.key) for used in one.left] == [
        ("x", RecordKey("boot-1", 1, 1)),
        ("y", RecordKey("boot-1", 1, 2)),
    ]


def test_stream_is_known_by_the_batch_of_its_record_not_of_its_tokens() -> None:
    one = house()
    at = one.clock.monotonic()
    one.tell(at=at + 0.3, streams=[tokens([at + 0.2], sent_at=at)], in_flight={"demo-int4": 1})
    one.tell(at=at + 1.0, records=[record(sent_at=at, upstream_done_at=at + 0.6)])
    one.second(4.0)
    assert [used.key for used in one.left] == [RecordKey("boot-1", 2, 0)]


def test_request_says_its_scopes_and_how_it_was_accounted() -> None:
    clock = FakeClock()
    meters = [FakeMeter(clock, "gpu:0", "gpu", kind="one"), FakeMeter(clock, "gpu:1", "module", kind="two")]
    one = House(clock=clock, meters=meters, replicas=[replica(device="gpu:0,1")])
    one.tick()
    answer(one)
    meters[1].use(1.0)
    one.second(2.0)
    (used,) = one.final
    assert (used.scope, used.method, used.confidence) == ("gpu+module", "token_share", 0.3)
    assert used.energy == 3_000_000


def test_request_that_waits_for_a_lost_meter_is_given_up_with_what_is_known() -> None:
    one = house()
    at = one.clock.monotonic()
    one.tell(at=at + 1.0, streams=[tokens([at + 0.5, at + 0.8], sent_at=at)], in_flight={"demo-int4": 1})
    for _ in range(11):
        one.second(2.0)
    one.meter.fail()
    one.tell(records=[record(sent_at=at, upstream_done_at=at + 11.5, ended_at=at + 11.5)])
    for _ in range(80):
        one.second(1.0)
    (used,) = one.left
    assert not used.whole
    assert used.energy > 0


def test_meter_that_is_lost_and_found_says_so_and_its_gap_is_nobodys() -> None:
    one = house()
    answer(one)
    one.second(10.0)
    before = one.accountant.snapshot()
    assert before.prices.keys() == {("demo-int4", "demo", "int4", "int4")}
    assert before.residuals.keys() == {"gpu:0"}
    one.meter.fail()
    for _ in range(90):
        answer(one, "unmetered")
        one.second(3.0)
    lost = one.accountant.snapshot()
    assert lost.meters["fake"][0] is False
    assert (lost.devices, lost.accounts, lost.tenants) == (before.devices, before.accounts, before.tenants)
    assert (lost.prices, lost.residuals) == ({}, {})
    assert [used.id for used in one.left] == ["r1"], "nobody knows what the others used"
    one.meter.recover()
    one.second(3.0)
    one.tell()
    one.tick()
    assert one.accounts("account")["unattributed",] == 91 * 3_000_000
    answer(one, "metered")
    one.second(7.0)
    assert [used.energy for used in one.final] == [10_000_000, 7_000_000]
    assert one.check_law() == 290_000_000


def test_finish_closes_what_is_open_and_gives_what_is_left() -> None:
    one = house()
    at = one.clock.monotonic()
    one.tell(at=at + 0.9, streams=[tokens([at + 0.5], id="runs", sent_at=at)], in_flight={"demo-int4": 1})
    one.tell(
        at=at + 0.9, records=[record(id="ended", sent_at=at, upstream_done_at=at + 0.7)], in_flight={"demo-int4": 1}
    )
    one.second(9.0)
    assert one.left == []
    (used,) = one.accountant.finish()
    assert (used.id, used.whole) == ("ended", True)
    assert one.accountant.pending_requests() == 0
    one.posted.update(one.accountant.take_postings())
    assert one.check_law() == 9_000_000


# --- prices and savings -----------------------------------------------------------------------------------------------


def test_prices_are_joules_over_tokens_of_the_last_minute() -> None:
    one = house()
    answer(one, prompt_tokens=100)
    one.second(4.0)
    price = one.accountant.prices()["demo-int4"]
    (used,) = one.final
    assert price.output_token == pytest.approx(used.decode / 10)
    assert price.prompt_token == pytest.approx(used.prefill / 100)
    assert (price.scope, price.method, price.confidence) == ("gpu", "token_share", 0.3)
    for _ in range(75):
        one.second(1.0)
        one.tell()
    assert one.accountant.prices() == {}, "nothing was sold in the last minute"


def test_price_of_a_prompt_token_is_unknown_where_all_prompts_were_cached() -> None:
    one = house()
    answer(one, prompt_tokens=100, cached_tokens=100)
    one.second(4.0)
    price = one.accountant.prices()["demo-int4"]
    assert price.prompt_token is None
    assert price.output_token == pytest.approx(400_000)


def test_marginal_price_is_what_the_method_says() -> None:
    class Knows(TokenShare):
        def marginal_output_token(self, engine: str) -> float | None:
            return 7.0 if engine == "demo-int4" else None

    one = house()
    answer(one)
    one.second(4.0)
    assert one.accountant.prices()["demo-int4"].marginal_output_token is None
    one.accountant.attribution = Knows()
    one.second(4.0)
    assert one.accountant.prices()["demo-int4"].marginal_output_token == 7.0


def test_cancelled_request_saves_its_unwritten_tokens_at_the_price_of_the_moment() -> None:
    one = house()
    left: dict[str, Any] = {"outcome": Outcome.CANCELLED, "cancelled_when": "streaming", "tokens_spared": 30}
    answer(one, "too early", **left)
    assert one.accountant.snapshot().saved == {}, "no price is known yet"
    one.second(4.0)
    price = one.accountant.prices()["demo-int4"].output_token
    assert price is not None
    answer(one, **left)
    answer(one, "queued", **(left | {"engine": None, "sent_at": None}))
    answer(one, "unknown", **(left | {"tokens_spared": None}))
    assert one.accountant.snapshot().saved == {("demo-int4", "demo", "int4", "int4"): round(30 * price)}


# --- idle -------------------------------------------------------------------------------------------------------------


def test_idle_stays_apart_by_default() -> None:
    one = house()
    answer(one)
    one.second(1.0)
    one.second(5.0)
    one.tell()
    one.tick()
    assert one.accountant.snapshot().tenants_idle == {}


def test_idle_is_spread_by_the_active_joules_of_the_last_hour() -> None:
    one = house(idle="spread")
    one.second(7.0)
    answer(one, "a", tenant="alice")
    one.second(3.0)
    answer(one, "b", tenant="bob")
    one.second(1.0)
    one.second(0.000_009)
    one.tell()
    one.tick()
    assert one.accountant.snapshot().tenants_idle == {("alice", "gpu"): 7, ("bob", "gpu"): 2}
    assert one.accounts("account")["idle",] == 7_000_009, "before anybody ran, nobody bears it; it stays in the account"
    one.check_law()


def test_reserved_shares_bear_idle_joules_and_the_rest_stays_apart() -> None:
    one = house(idle="reserved", reserved={"alice": 0.5, "bob": 0.2})
    one.second(10.0)
    one.tell()
    one.tick()
    assert one.accountant.snapshot().tenants_idle == {("alice", "gpu"): 5_000_000, ("bob", "gpu"): 2_000_000}
    one.check_law()


def test_active_joules_are_forgotten_after_an_hour_and_by_device() -> None:
    bearers = IdleBearers(EnergySettings(idle="spread"))
    bearers.used("gpu:0", Seconds(0.0), "early", Microjoules(5))
    bearers.used("gpu:0", Seconds(1800.0), "late", Microjoules(5))
    assert bearers.bearers("gpu:0", Seconds(1800.0), Microjoules(10)) == {"early": 5, "late": 5}
    assert bearers.bearers("gpu:1", Seconds(1800.0), Microjoules(10)) == {}
    assert bearers.bearers("gpu:0", Seconds(3700.0), Microjoules(10)) == {"late": 10}
    assert bearers.bearers("gpu:0", Seconds(9000.0), Microjoules(10)) == {}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"idle": "reserved", "reserved": {"a": 0.7, "b": 0.4}}, "add up to 1.1; make it at most 1"),
        ({"idle": "reserved", "reserved": {"a": -0.1}}, "that of a does not"),
        ({"idle": "reserved", "reserved": {"a": float("nan")}}, "that of a does not"),
        ({"idle": "spread", "reserved": {"a": 0.1}}, "need one another"),
        ({"idle": "reserved"}, "need one another"),
    ],
)
def test_reserved_shares_that_make_no_sense_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        EnergySettings(**wrong)


def test_shares_that_add_up_to_one_but_for_rounding_are_taken() -> None:
    EnergySettings(idle="reserved", reserved={str(tenant): 1 / 49 for tenant in range(49)})


def test_method_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no method 'guess'; there are automatic"):
        House(method="guess")


def test_worker_that_comes_again_has_other_keys() -> None:
    one = house()
    at = one.clock.monotonic()
    for boot in ("boot-1", "boot-2"):
        one.tell(worker(boot), at=at + 1.0, records=[record(sent_at=at, upstream_done_at=at + 0.5)])
    one.second(4.0)
    assert {used.key.boot for used in one.left} == {"boot-1", "boot-2"}
