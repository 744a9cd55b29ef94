"""Who pays for which joule, from readings and batches."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.energy import ProcessTable
from server.fleet import EngineState
from server.wire import Outcome
from tests.energy.house import House
from tests.energy.test_processes import Proc
from tests.fakes.batches import record, replica, tokens, worker
from tests.fakes.clock import FakeClock
from tests.fakes.meter import FakeMeter


@pytest.fixture
def house() -> House:
    built = House()
    built.tick()
    return built


def test_nothing_is_said_before_the_first_window(house: House) -> None:
    now = house.accountant.snapshot()
    assert (now.devices, now.accounts, now.tenants) == ({}, {}, {})
    assert now.meters == {"fake": (True, 0.0)}


def test_idle_device_is_idle(house: House) -> None:
    house.clock.advance(1.0)
    house.meter.use(100.0)
    house.tick()
    house.tell()
    house.tick()
    assert house.accounts("engine", "account") == {("demo-int4", "idle"): 100_000_000}
    assert house.accountant.snapshot().devices == {("gpu:0", "gpu"): 100_000_000}


def test_requests_share_by_their_tokens_in_the_window(house: House) -> None:
    house.tell(
        at=1001.0,
        streams=[
            tokens([1000.2, 1000.4, 1000.6], id="long", tenant="alice", sent_at=1000.1),
            tokens([1000.3], id="short", tenant="bob", adapter="json", sent_at=1000.1),
        ],
        records=[
            record(
                id="long", tenant="alice", prompt_tokens=0, output_tokens=3, token_chunks=3, upstream_done_at=1000.7,
            ),
            record(
                id="short", tenant="bob", adapter="json", prompt_tokens=0, output_tokens=1, token_chunks=1,
                upstream_done_at=1000.7,
            ),
        ],
    )  # fmt: skip
    house.second(8.0)
    assert house.accounts("adapter", "account") == {("none", "active"): 6_000_000, ("json", "active"): 2_000_000}
    assert house.accountant.snapshot().tenants == {("alice", "gpu"): 6_000_000, ("bob", "gpu"): 2_000_000}
    assert {final.id: final.energy for final in house.final} == {"long": 6_000_000, "short": 2_000_000}
    assert house.accountant.pending_requests() == 0


def test_computed_prompt_token_counts_a_tenth_and_a_cached_one_nothing(house: House) -> None:
    common = {"output_tokens": 1, "token_chunks": 1, "first_token_at": 1000.5, "upstream_done_at": 1000.6}
    house.tell(
        at=1001.0,
        streams=[tokens([1000.5], id=id_) for id_ in ("a", "b")],
        records=[
            record(id="a", prompt_tokens=30, cached_tokens=0, **common),
            record(id="b", prompt_tokens=30, cached_tokens=30, **common),
        ],
    )
    house.second(5.0)
    assert {final.id: final.energy for final in house.final} == {"a": 4_000_000, "b": 1_000_000}


def test_whole_answer_spreads_evenly_over_the_time_it_took(house: House) -> None:
    house.tell(in_flight={"demo-int4": 1})
    house.second(10.0)
    house.second(20.0)
    assert house.accountant.snapshot().devices == {}, "windows wait for the request"
    whole = record(
        streamed=False, sent_at=1000.5, first_token_at=None, upstream_done_at=1002.0, ended_at=1002.0, token_chunks=0,
        output_tokens=30, prompt_tokens=0,
    )  # fmt: skip
    house.tell(records=[whole])
    house.tick()
    assert house.accounts("account") == {("active",): 30_000_000}
    assert house.accountant.pending_requests() == 1, "it ended on the border of a window that is still open"
    house.second(1.0)
    house.tell()
    house.tick()
    assert [final.energy for final in house.final] == [30_000_000]


def test_window_waits_for_a_stream_that_began_in_it_and_then_knows_its_prompt(house: House) -> None:
    house.tell(at=1000.9, streams=[tokens([1000.5, 1000.8])], in_flight={"demo-int4": 1})
    house.second(10.0)
    house.tell(at=1001.2, in_flight={"demo-int4": 1})
    house.second(10.0)
    assert house.accountant.snapshot().devices == {}
    assert house.accountant.pending_requests() == 1
    house.tell(at=1002.5, streams=[tokens([1002.2], previous_at=1000.8)], records=[record(upstream_done_at=1002.2)])
    house.tick()
    assert house.check_law() == 20_000_000
    assert house.accounts("account") == {("active",): 20_000_000}


def test_window_waits_for_a_request_that_only_the_worker_knows(house: House) -> None:
    house.tell(at=1000.9, in_flight={"demo-int4": 1})
    house.second(10.0)
    house.tell(in_flight={"demo-int4": 1})
    house.tick()
    assert house.accountant.snapshot().devices == {}
    house.tell(in_flight={})
    house.tick()
    assert house.check_law() == 10_000_000


def test_token_on_the_border_of_two_windows_counts_in_the_later_one(house: House) -> None:
    house.clock.advance(2.0)
    house.tell(
        at=1003.0,
        streams=[tokens([1000.5, 1001.0], id="a"), tokens([1000.6, 1001.5], id="b")],
        records=[
            record(id="a", prompt_tokens=0, output_tokens=2, token_chunks=2, upstream_done_at=1001.5),
            record(id="b", prompt_tokens=0, output_tokens=2, token_chunks=2, upstream_done_at=1001.5),
        ],
    )
    house.clock.advance(-2.0)
    house.second(4.0)
    house.second(6.0)
    assert {final.id: final.energy for final in house.final} == {"a": 5_000_000, "b": 5_000_000}


def test_window_closes_at_the_end_of_the_hold_with_what_is_known() -> None:
    house = House(hold_s=2.0)
    house.tick()
    house.tell(at=1000.9, streams=[tokens([1000.5])], in_flight={"demo-int4": 2})
    for _ in range(3):
        house.second(1.0)
    assert house.accountant.snapshot().devices == {("gpu:0", "gpu"): 1_000_000}
    assert house.accounts("account") == {("active",): 1_000_000}


def test_engine_seen_running_for_nobody_known_is_unattributed() -> None:
    house = House(hold_s=0.0)
    house.tick()
    house.tell(at=1000.5, in_flight={"demo-int4": 1})
    house.second(3.0)
    assert house.accounts("account") == {("unattributed",): 3_000_000}


def test_request_known_only_after_its_window_closed_has_no_final_energy() -> None:
    house = House(hold_s=0.0)
    house.tick()
    house.second(3.0)
    house.tell(records=[record(sent_at=1000.2, upstream_done_at=1001.5, ended_at=1001.5)])
    house.second(3.0)
    assert [(one.energy, one.whole) for one in house.left] == [(3_000_000, False)]
    assert house.final == []
    house.check_law()


def test_request_older_than_the_meter_has_no_final_energy() -> None:
    house = House()
    house.clock.advance(0.5)
    house.tick()
    house.tell(at=1002.0, records=[record(sent_at=1000.2, upstream_done_at=1001.0)])
    house.second(3.0)
    assert house.accounts("account") == {("active",): 3_000_000}
    assert house.final == []


def test_failed_request_pays_but_is_not_observed_as_a_completed_one(house: House) -> None:
    house.tell(at=1001.0, records=[record(outcome=Outcome.TRUNCATED, upstream_done_at=1000.5)])
    house.second(3.0)
    assert house.final == []
    assert [(one.energy, one.completed, one.whole) for one in house.left] == [(3_000_000, False, True)]


def test_request_that_never_reached_an_engine_pays_nothing(house: House) -> None:
    rejected = record(outcome=Outcome.REJECTED, sent_at=None, first_token_at=None, engine=None)
    house.tell(at=1001.0, records=[rejected])
    house.second(3.0)
    assert house.accounts("account") == {("idle",): 3_000_000}
    assert house.accountant.pending_requests() == 0


def test_twins_pay_the_same(house: House) -> None:
    both = [("a", 1000.2), ("b", 1000.2)]
    house.tell(
        at=1001.0,
        streams=[tokens([at, at + 0.1], id=id_) for id_, at in both],
        records=[record(id=id_, upstream_done_at=1000.5) for id_, _ in both],
    )
    house.second(7.000001)
    one, two = (final.energy for final in house.final)
    assert abs(one - two) <= 1
    assert one + two == 7_000_001


def test_same_id_twice_is_two_requests(house: House) -> None:
    house.tell(at=1000.6, records=[record(upstream_done_at=1000.2)])
    house.tell(at=1001.0, records=[record(upstream_done_at=1000.8)])
    house.second(2.0)
    assert [final.id for final in house.final] == ["r1", "r1"]
    assert sum(final.energy for final in house.final) == 2_000_000


def test_tokens_past_the_gateway_are_unattributed(house: House) -> None:
    house.replicas = [replica(gauges={"output_tokens_total": 0})]
    house.second(1.0)
    house.tell()
    house.tick()
    house.tell(at=1002.0, streams=[tokens([1001.5] * 100)], records=[record(output_tokens=100, token_chunks=100,
               prompt_tokens=0, sent_at=1001.2, upstream_done_at=1001.6)])  # fmt: skip
    house.replicas = [replica(gauges={"output_tokens_total": 400})]
    house.second(4.0)
    assert house.accounts("account") == {("idle",): 1_000_000, ("active",): 1_000_000, ("unattributed",): 3_000_000}


def test_two_gpus_of_one_engine_are_accounted_each_and_its_request_pays_on_both() -> None:
    clock = FakeClock()
    meters = [FakeMeter(clock, "gpu:0", kind="first"), FakeMeter(clock, "gpu:1", kind="second")]
    house = House(clock=clock, meters=meters, replicas=[replica(device="gpu:0,1"), replica(name="x", device="gpu:1")])
    house.tick()
    house.tell(at=1001.0, records=[record(upstream_done_at=1000.5)])
    meters[1].use(3.0)
    house.second(2.0)
    assert house.accounts("device", "account") == {("gpu:0", "active"): 2_000_000, ("gpu:1", "active"): 3_000_000}
    assert [final.energy for final in house.final] == [5_000_000]


def test_gpu_one_is_not_gpu_eleven() -> None:
    clock = FakeClock()
    house = House(clock=clock, meters=[FakeMeter(clock, "gpu:1")], replicas=[replica(device="gpu:11")])
    house.tick()
    house.second(2.0)
    house.tell()
    house.tick()
    assert house.accounts("engine", "account") == {("none", "idle"): 2_000_000}


def test_engine_elsewhere_has_no_joules() -> None:
    house = House(replicas=[replica(device="remote", pid=None)])
    house.tick()
    house.tell(at=1001.0, records=[record(upstream_done_at=1000.5)])
    house.second(2.0)
    assert house.accounts("engine", "account") == {("none", "idle"): 2_000_000}
    assert house.final == []
    house.second(1.0)
    house.tell()
    house.tick()
    assert house.accountant.pending_requests() == 0


def test_meter_that_fails_is_down_its_counters_stand_and_its_return_is_one_long_window(house: House) -> None:
    house.tell(at=1001.5)
    house.second(1.0)
    house.meter.fail()
    house.second(5.0)
    now = house.accountant.snapshot()
    assert now.meters == {"fake": (False, 1.0)}
    assert now.devices == {("gpu:0", "gpu"): 1_000_000}
    assert now.silent == {"gpu:0"}
    house.meter.recover()
    house.second(2.0)
    house.tell()
    house.tick()
    assert house.accountant.snapshot().meters == {"fake": (True, 0.0)}
    assert house.accountant.snapshot().silent == frozenset()
    assert house.check_law() == 8_000_000


def test_after_a_long_silence_of_the_meter_nobody_is_charged(house: House) -> None:
    house.tell(at=1000.1, records=[record(sent_at=1000.0, upstream_done_at=1000.1)])
    house.meter.fail()
    house.tick()
    house.clock.advance(61.0)
    house.meter.recover()
    house.second(50.0)
    house.tell()
    house.tick()
    assert house.accounts("engine", "account") == {("none", "unattributed"): 50_000_000}
    assert house.final == []


def test_meter_that_was_never_read_has_no_age_and_no_joules() -> None:
    house = House()
    house.meter.fail()
    house.tick()
    now = house.accountant.snapshot()
    assert now.meters == {"fake": (False, None)}
    assert now.devices == {}
    assert now.closed_until is None
    assert house.accountant.closed_until_age() is None


@pytest.mark.parametrize("nonsense", [float("nan"), float("inf"), -1.0])
def test_reading_that_is_no_number_of_joules_is_a_failure(house: House, nonsense: float) -> None:
    house.meter.say(nonsense)
    house.clock.advance(1.0)
    house.tick()
    assert house.accountant.snapshot().meters == {"fake": (False, 1.0)}
    house.meter.say(4.0)
    house.clock.advance(1.0)
    house.tick()
    house.tell()
    house.tick()
    assert house.check_law() == 4_000_000


def test_two_meters_fail_apart() -> None:
    clock = FakeClock()
    meters = [FakeMeter(clock, "gpu:0", kind="first"), FakeMeter(clock, "gpu:1", kind="second")]
    house = House(clock=clock, meters=meters)
    house.tick()
    meters[0].fail()
    meters[1].use(3.0)
    house.second(0.0)
    house.tell()
    house.tick()
    now = house.accountant.snapshot()
    assert {meter: up for meter, (up, _) in now.meters.items()} == {"first": False, "second": True}
    assert now.devices == {("gpu:1", "gpu"): 3_000_000}


def test_readings_closer_than_a_second_make_one_window(house: House) -> None:
    for _ in range(5):
        house.clock.advance(0.25)
        house.meter.use(1.0)
        house.tell()
        house.tick()
    assert house.check_law() == 4_000_000
    assert house.accountant.closed_until_age() == 0.25


def test_worker_that_dies_releases_its_streams(house: House) -> None:
    house.tell(at=1000.9, streams=[tokens([1000.5])], in_flight={"demo-int4": 1})
    house.tell(at=1000.9, by=worker("other", 1))
    house.second(1.0)
    house.accountant.left(worker())
    house.tell(at=1001.1, by=worker("other", 1))
    house.tick()
    assert house.accounts("account") == {("active",): 1_000_000}


def test_names_beyond_the_cap_share_other_and_the_law_holds() -> None:
    house = House(max_adapters=2)
    house.tick()
    for adapter in "abcd":
        at = house.clock.monotonic()
        house.tell(
            at=at + 1.0, records=[record(adapter=adapter, tenant=adapter, sent_at=at, upstream_done_at=at + 0.5)]
        )
        house.second(1.0)
        house.clock.advance(1800.0)
        house.tick()
    house.tell()
    house.tick()
    house.check_law()
    assert len({adapter for (adapter,) in house.accounts("adapter")} - {"none"}) <= 3
    assert len(house.accountant.snapshot().tenants) <= 3


class CpuHost:
    """Two engines on the CPU, on a /proc made of files."""

    def __init__(self, root: Path) -> None:
        self.proc = Proc(root)
        self.clock = FakeClock()
        self.meter = FakeMeter(self.clock, "cpu", "estimated", by_cpu_time=True)
        self.meter.use(0.0, baseline=0.0)
        self.proc.put(100, 1)
        self.proc.put(200, 1)
        self.replicas = [
            replica(device="cpu", pid=100),
            replica(name="demo-bf16", variant="bf16", precision="bf16", device="cpu", pid=200),
        ]
        self.house = House(
            clock=self.clock,
            meters=[self.meter],
            replicas=self.replicas,
            processes=ProcessTable(root, ticks_per_second=100),
        )
        self.house.tick()

    def work(self, first: int, second: int, everything: int) -> None:
        """CPU ticks since the start, of both engines and the host."""
        self.proc.put(100, 1, user=first)
        self.proc.put(200, 1, user=second)
        self.proc.cpu(user=everything)


@pytest.fixture
def host(tmp_path: Path) -> CpuHost:
    return CpuHost(tmp_path)


def test_cpu_is_shared_by_the_time_of_process_trees(host: CpuHost) -> None:
    host.work(first=50, second=10, everything=100)
    host.house.tell(at=1001.0, records=[record(upstream_done_at=1000.5)])
    host.house.second(30.0, baseline=20.0)
    assert host.house.accounts("engine", "account") == {
        ("demo-int4", "active"): 5_000_000,
        ("demo-int4", "idle"): 10_000_000,
        ("demo-bf16", "idle"): 11_000_000,
        ("none", "other"): 4_000_000,
    }
    assert host.house.check_law() == 30_000_000


def test_engine_that_restarted_pays_for_its_start_from_zero(host: CpuHost) -> None:
    host.work(first=50, second=0, everything=100)
    host.house.second(30.0, baseline=20.0)
    host.proc.end(100)
    host.proc.put(101, 1, user=24)
    host.proc.cpu(user=200)
    host.house.replicas = [replica(device="cpu", pid=101, state=EngineState.STARTING), host.replicas[1]]
    host.house.second(30.0, baseline=20.0)
    host.house.tell()
    host.house.tick()
    assert host.house.accounts("engine", "account")["demo-int4", "idle"] == 20_000_000 + 5_000_000 + 2_500_000
    assert host.house.check_law() == 60_000_000


def test_tree_whose_time_fell_is_charged_nothing_rather_than_less(host: CpuHost) -> None:
    host.work(first=50, second=0, everything=100)
    host.house.second(30.0, baseline=20.0)
    host.work(first=10, second=0, everything=200)
    host.house.second(30.0, baseline=20.0)
    host.house.tell()
    host.house.tick()
    assert host.house.check_law() == 60_000_000


def test_proc_that_cannot_be_read_takes_the_meter_down(host: CpuHost) -> None:
    (host.proc.root / "stat").unlink()
    host.house.second(30.0, baseline=20.0)
    assert host.house.accountant.snapshot().meters["fake"][0] is False


def test_counter_that_falls_against_its_contract_costs_nobody_anything(house: House) -> None:
    house.second(5.0)
    house.meter.restart()
    house.second(1.0)
    house.second(2.0)
    house.tell()
    house.tick()
    assert house.check_law() == 7_000_000


def test_stream_whose_record_never_comes_is_given_up(house: House) -> None:
    house.tell(at=1000.9, streams=[tokens([1000.5])], in_flight={"demo-int4": 1})
    for _ in range(12):
        house.clock.advance(59.0)
        house.second(1.0)
    house.tell()
    house.tick()
    assert house.accountant.pending_requests() == 0
