"""The law: Σ requests + idle + unattributed + other = meter, whatever happens."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.fleet import EngineState
from server.wire import Outcome
from tests.energy.house import FakeProcesses, House
from tests.fakes.batches import record, replica, tokens, worker
from tests.fakes.clock import FakeClock
from tests.fakes.meter import FakeMeter

ENGINES = ["demo-int4", "demo-bf16", "stranger"]
AGO = st.floats(-1.5, 0.5)
"""Times of events, as seen from the end of their second: clocks of other processes, and late batches."""
COUNTS = st.none() | st.integers(0, 50)
JOULES = st.just(0.0) | st.floats(0, 1e6)

Event = Callable[[House], None]


@st.composite
def tokens_come(draw: st.DrawFn) -> Event:
    id_, engine = draw(st.sampled_from("abc")), draw(st.sampled_from(ENGINES))
    adapter, boot = draw(st.sampled_from(["none", "x", "y", "z"])), draw(st.sampled_from(["one", "two"]))
    times, sent = draw(st.lists(AGO, max_size=5)), draw(AGO)

    def event(house: House) -> None:
        now = house.clock.monotonic()
        absolute = sorted(now + time for time in times)
        stream = tokens(absolute, id=id_, engine=engine, adapter=adapter, sent_at=now + sent)
        house.tell(worker(boot), streams=[stream], in_flight={engine: 1})

    return event


@st.composite
def request_ends(draw: st.DrawFn) -> Event:
    id_, engine = draw(st.sampled_from("abc")), draw(st.sampled_from([*ENGINES, None]))
    times = [draw(st.none() | AGO) for _ in range(3)]
    prompt, cached, output, chunks = draw(st.tuples(COUNTS, COUNTS, COUNTS, st.integers(0, 9)))
    outcome = draw(st.sampled_from(list(Outcome)))

    def event(house: House) -> None:
        now = house.clock.monotonic()
        sent, first, done = (None if time is None else now + time for time in times)
        ended = record(
            id=id_,
            engine=engine,
            tenant=id_,
            sent_at=sent,
            first_token_at=first,
            upstream_done_at=done,
            ended_at=now,
            prompt_tokens=prompt,
            cached_tokens=cached,
            output_tokens=output,
            token_chunks=chunks,
            outcome=outcome,
        )
        house.tell(worker("one"), records=[ended])

    return event


@st.composite
def something_breaks(draw: st.DrawFn) -> Event:
    meter, what = draw(st.integers(0, 1)), draw(st.sampled_from(["fail", "recover", "restart", "nan", "leave"]))

    def event(house: House) -> None:
        if what == "nan":
            house.meters[meter].say(math.nan)
            house.tick()
            house.meters[meter].restart()
        elif what == "leave":
            house.accountant.left(worker("two"))
        else:
            getattr(house.meters[meter], what)()

    return event


@st.composite
def engines_change(draw: st.DrawFn) -> Event:
    states = draw(st.lists(st.sampled_from(list(EngineState)), max_size=2))
    pids = {name: draw(st.none() | st.integers(1, 3)) for name in ENGINES}
    device, total = draw(st.sampled_from(["gpu:0", "cpu", "remote"])), draw(st.none() | st.integers(0, 1000))

    def event(house: House) -> None:
        house.replicas = [
            replica(name=name, state=state, device=device, pid=pids[name], gauges={"output_tokens_total": total})
            for name, state in zip(ENGINES, states, strict=False)
        ]

    return event


USUAL = st.lists(st.one_of(tokens_come(), request_ends()), max_size=4)
UNUSUAL = st.lists(st.one_of(something_breaks(), engines_change()), min_size=1, max_size=1)
SECOND = st.tuples(
    st.one_of(USUAL, USUAL, USUAL, UNUSUAL),
    JOULES,
    JOULES,
    st.none() | st.floats(0, 1e6),
    st.sampled_from([1.0, 1.0, 1.0, 1.0, 0.3, 2.5, 90.0, 4000.0]),
    st.tuples(st.integers(-50, 500), st.integers(0, 500), st.integers(-50, 500)),
)
HISTORY = st.lists(SECOND, min_size=3, max_size=10)

History = list[tuple[list[Event], float, float, float | None, float, tuple[int, int, int]]]


def play(history: History, check: Callable[[House], None] = lambda _: None) -> House:
    """Live through a history on a GPU and a CPU, then through a quiet end in which all windows close."""
    clock = FakeClock()
    gpu = FakeMeter(clock, "gpu:0", kind="gpu")
    cpu = FakeMeter(clock, "cpu", "estimated", by_cpu_time=True, kind="cpu")
    processes = FakeProcesses()
    house = House(
        clock=clock,
        meters=[gpu, cpu],
        replicas=[replica(pid=1), replica(name=ENGINES[1], device="cpu", pid=2)],
        processes=processes,
        hold_s=3.0,
        max_adapters=2,
        method="automatic",
        idle="spread",
    )
    cpu.use(0.0, baseline=0.0)
    house.tick()
    for events, gpu_joules, cpu_joules, baseline, seconds, (first, second, rest) in history:
        clock.advance(seconds)
        processes.trees = {1: processes.trees.get(1, 0) + first, 2: processes.trees.get(2, 0) + second}
        processes.busy += max(0, first + second + rest)
        for event in events:
            event(house)
        gpu.use(gpu_joules)
        cpu.use(cpu_joules, baseline)
        house.tick()
        check(house)
    gpu.recover()
    cpu.recover()
    for _ in range(6):
        clock.advance(1.0)
        house.tick()
        check(house)
    return house


@settings(max_examples=60, deadline=None)
@given(HISTORY)
def test_accounts_add_up_to_the_meter_exactly_at_every_moment(history: History) -> None:
    totals = [0]

    def check(house: House) -> None:
        totals.append(house.check_law())
        assert totals[-1] >= totals[-2]

    play(history, check)


@settings(max_examples=60, deadline=None)
@given(HISTORY)
def test_final_energies_stay_within_the_active_account_and_each_is_said_once(history: History) -> None:
    house = play(history)
    active = house.accounts("account").get(("active",), 0)
    assert sum(used.energy for used in house.left) <= active
    assert all(used.prefill >= 0 <= used.decode for used in house.left)
    keys = [used.key for used in house.left]
    assert len(set(keys)) == len(keys)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(USUAL, st.floats(0, 1e6)), min_size=1, max_size=10))
def test_every_joule_of_a_meter_that_works_is_accounted(seconds: list[tuple[list[Event], float]]) -> None:
    house = play([(events, joules, 0.0, None, 1.0, (1, 1, 1)) for events, joules in seconds])
    said = round(sum(joules for _, joules in seconds) * 1e6)
    assert house.accountant.snapshot().devices["gpu:0", "gpu"] == pytest.approx(said, abs=1)
    assert house.check_law() == pytest.approx(said, abs=1)


def test_histories_reach_every_account_and_final_energies() -> None:
    """The properties above would also hold for an accountant that never closes a window."""
    reached = Counter[str]()

    @settings(max_examples=120, deadline=None, database=None, derandomize=True)
    @given(HISTORY)
    def look(history: History) -> None:
        house = play(history)
        reached.update(account for (account,), amount in house.accounts("account").items() if amount)
        reached.update(["final"] * any(used.whole for used in house.left))

    look()
    assert min(reached[account] for account in ("active", "idle", "unattributed", "other")) >= 5, reached
    assert reached["final"]
