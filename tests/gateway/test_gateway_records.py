"""Records and token times on their way to whatever control plane there is."""

from __future__ import annotations

import asyncio
import logging
from array import array
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from server.clock import SystemClock
from server.config.settings import GatewaySettings
from server.gateway.bus import BusClient
from server.gateway.grammars.openai_watch import OpenAIWatch
from server.gateway.records import Recorder
from server.gateway.token_log import TokenLog
from server.gateway.trace import Trace
from server.gateway.worker import Identity, Worker
from server.units import Seconds
from server.wire import MAX_FRAME_BYTES, Ack, Batch, Hello, RequestRecord, WorkerGauges, encode
from tests.fakes.batches import unpacked
from tests.fakes.clock import FakeClock
from tests.fakes.control_plane import FakeControlPlane
from tests.fakes.scripted_engine import DONE, EngineConnection, chunked, role, token, whole
from tests.gateway.house import House, candidate

pytestmark = pytest.mark.anyio


def gauges(dropped: int) -> WorkerGauges:
    return WorkerGauges(in_flight={}, queued=0, loop_lags_s=[], records_dropped=dropped, rejections={}, retries={})


def recorder(max_backlog: int = 1000) -> Recorder:
    return Recorder(max_backlog=max_backlog, clock=SystemClock(), gauges=gauges)


def record(name: str) -> RequestRecord:
    return Trace(request_id=name, endpoint="chat", received_at=Seconds(1.0)).record(Seconds(2.0))


def log() -> TokenLog:
    return TokenLog(id="r", tenant="t", candidate=candidate(), sent_at=Seconds(1.0))


def ids(control: FakeControlPlane) -> list[str]:
    return [one.id for one in control.records]


async def test_records_survive_control_planes_that_die_and_are_sent_once_when_acknowledged() -> None:
    with TemporaryDirectory(prefix="wg") as folder:
        bus, one = Path(folder) / "bus", recorder()
        hello = Hello(version=1, slot=3, pid=1, boot="b")
        client = BusClient(bus, hello, one, on_news=lambda _: None)
        task = asyncio.ensure_future(client.run())
        one.add(record("a"))
        first = FakeControlPlane(bus)
        async with first.running():
            await first.record()
            one.add(record("b"))
            first.acknowledges = False
            await first.record(2)
        one.add(record("c"))
        second = FakeControlPlane(bus)
        async with second.running():
            await second.record(2)
            assert await client.flush(Seconds(5))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert ids(first) == ["a", "b"]
    assert ids(second) == ["b", "c"]
    assert second.hellos == [hello]
    numbers = [batch.seq for batch in second.batches]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


async def test_control_plane_that_says_nothing_is_asked_ever_more_seldom_and_one_that_speaks_at_once() -> None:
    pauses: list[float] = []
    enough = asyncio.Event()

    async def pause(delay: float) -> None:
        pauses.append(delay)
        if len(pauses) == 8:
            enough.set()
        await asyncio.sleep(0)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(pauses) == 6:
            writer.write(encode(Ack(seq=0)))
        writer.close()

    with TemporaryDirectory(prefix="wg") as folder:
        bus = Path(folder) / "bus"
        hello = Hello(version=1, slot=0, pid=1, boot="b")
        client = BusClient(bus, hello, recorder(), on_news=lambda _: None, pause=pause)
        async with asyncio.timeout(10), await asyncio.start_unix_server(talk, bus):
            task = asyncio.ensure_future(client.run())
            await enough.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert pauses[:8] == [0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.02, 0.04]


async def test_batch_that_is_too_large_for_the_bus_is_dropped_counted_and_holds_up_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with TemporaryDirectory(prefix="wg") as folder:
        bus, one = Path(folder) / "bus", recorder()
        one.add(record("x" * (MAX_FRAME_BYTES + 1)))
        one.cut(even_if_empty=False)
        one.add(record("small"))
        client = BusClient(bus, Hello(version=1, slot=0, pid=1, boot="b"), one, on_news=lambda _: None)
        control = FakeControlPlane(bus)
        async with control.running():
            task = asyncio.ensure_future(client.run())
            assert await client.flush(Seconds(10))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert ids(control) == ["small"]
        assert (one.dropped, one.held) == (1, 0)
        assert "1 records are lost" in caplog.text


async def test_flush_without_a_control_plane_gives_up_in_time() -> None:
    with TemporaryDirectory(prefix="wg") as folder:
        one = recorder()
        one.add(record("a"))
        hello = Hello(version=1, slot=0, pid=1, boot="b")
        client = BusClient(Path(folder) / "bus", hello, one, on_news=lambda _: None)
        assert not await client.flush(Seconds(0.01))


async def test_worker_whose_last_records_nobody_took_says_how_many_they_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("server.gateway.worker._LAST_ACK", Seconds(0.01))
    with TemporaryDirectory(prefix="wg") as folder:
        identity = Identity(slot=0, pid=1, boot="b")
        worker = Worker(GatewaySettings(), identity, bus=Path(folder) / "bus", clock=SystemClock())
        async with worker.alive():
            series = log()
            series.times.append(1.5)
            worker.recorder.unfollow(series)
            worker.recorder.add(record("a"))
            worker.recorder.cut(even_if_empty=False)
            worker.recorder.cut(even_if_empty=True)  # holds a place in the backlog, and no record
            worker.recorder.add(record("b"))
        assert worker.recorder.held == 4
    assert "took the last 2 records" in caplog.text


async def test_worker_serves_on_while_the_control_plane_is_away_and_takes_the_next_ones_table(house: House) -> None:
    house.control.hang_up()
    house.engine.then(whole({"served": True}))
    assert (await house.chat()).json() == {"served": True}
    await house.control.until(lambda: len(house.control.hellos) == 2)
    await house.know()
    assert (await house.control.record()).outcome == "ok"


async def test_nonsense_on_the_bus_ends_that_connection_only(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    house.control.say(b"\xff\xff\xff\xff")
    await house.control.until(lambda: len(house.control.hellos) == 2)
    assert "the control plane is gone" in caplog.text
    assert (await house.chat()).status_code == 200


async def test_token_times_of_a_running_stream_are_sent_each_exactly_once(house: House) -> None:
    go_on = asyncio.Event()

    async def script(connection: EngineConnection) -> None:
        connection.stream_head()
        connection.event(role(), token("a"), token("b"))
        await go_on.wait()
        connection.event(token("c"), DONE)
        connection.send(chunked(b""))

    house.engine.then(script)
    answer = asyncio.ensure_future(house.chat(stream=True))

    def series() -> list[array[float]]:
        return [array("d", one.times) for batch in house.control.batches for one in unpacked(batch.tokens)]

    await house.control.until(lambda: sum(map(len, series())) == 2)
    assert not house.control.records
    assert house.control.batches[-1].gauges.in_flight == {"engine-a": 1}
    go_on.set()
    await answer
    last = await house.control.record()
    await house.control.until(lambda: sum(map(len, series())) == 3)
    times = [at for one in series() for at in one]
    assert times == sorted(times)
    assert (times[0], times[-1], len(times)) == (last.first_token_at, last.last_token_at, last.token_chunks)
    parts = [one for batch in house.control.batches for one in unpacked(batch.tokens)]
    assert parts[0].previous_at is None
    assert [one.previous_at for one in parts[1:]] == [part[-1] for part in series()[:-1]]
    assert {(one.id, one.engine, one.variant) for one in parts} == {(last.id, "engine-a", "bf16")}


def test_oldest_records_are_dropped_and_counted_when_nobody_takes_them() -> None:
    one = recorder(max_backlog=100)
    for number in range(250):
        one.add(record(str(number)))
    one.cut(even_if_empty=False)
    kept = [each.id for batch in one.after(0) for each in batch.records]
    assert kept == [str(number) for number in range(250 - len(kept), 250)]
    assert len(kept) <= 100
    assert one.dropped == 250 - len(kept)
    reported = one.dropped
    one.cut(even_if_empty=True)
    assert [batch.gauges.records_dropped for batch in one.after(0)][-1] == reported


def test_acknowledged_batches_are_forgotten_and_others_are_not() -> None:
    one = recorder()
    for name in "abc":
        one.add(record(name))
        one.cut(even_if_empty=False)
    one.acknowledge(Ack(seq=2).seq)
    assert [each.id for batch in one.after(0) for each in batch.records] == ["c"]
    assert one.held == 1


def test_empty_batches_that_nobody_acknowledges_are_bounded_too() -> None:
    one = recorder(max_backlog=100)
    for _ in range(500):
        one.cut(even_if_empty=True)
    assert len(list(one.after(0))) <= 100
    assert one.dropped == 0


def test_stream_that_ends_leaves_its_last_times_to_the_next_batch() -> None:
    one, series = recorder(), log()
    one.follow(series)
    watch = OpenAIWatch(times=series.times, strip_usage=False, model=None)
    watch.feed(token("a"), Seconds(1.5))
    one.unfollow(series)
    one.cut(even_if_empty=False)
    (batch,) = one.after(0)
    assert list(array("d", batch.tokens.times)) == [1.5]
    one.cut(even_if_empty=False)
    assert len(list(one.after(0))) == 1


def test_a_batch_holds_every_stream_with_new_times_and_says_once_whose_they_are() -> None:
    one = recorder()
    shared = candidate()
    told = [("a", candidate()), ("b", shared), ("b", shared), ("c", shared)]
    logs = [
        TokenLog(id=f"r{number}", tenant=tenant, candidate=served, sent_at=Seconds(1.0))
        for number, (tenant, served) in enumerate(told)
    ]
    for series in logs:
        one.follow(series)
    for at, series in enumerate(logs[:3]):
        series.times.extend([at + 2.0, at + 2.5])
    one.unfollow(logs[0])
    one.cut(even_if_empty=False)
    logs[1].times.append(9.0)
    one.cut(even_if_empty=False)
    first, second = (batch.tokens for batch in one.after(0))
    heard = {stream.id: (stream.tenant, stream.times, stream.previous_at) for stream in unpacked(first)}
    assert heard == {"r0": ("a", [2.0, 2.5], None), "r1": ("b", [3.0, 3.5], None), "r2": ("b", [4.0, 4.5], None)}
    assert sorted(source.tenant for source in first.sources) == ["a", "b"]
    assert [(stream.id, stream.times, stream.previous_at) for stream in unpacked(second)] == [("r1", [9.0], 3.5)]


def test_streams_gathered_in_parts_are_whole_in_one_batch_that_tells_of_all_before_the_first_part() -> None:
    clock = FakeClock()
    one = Recorder(max_backlog=10_000, clock=clock, gauges=gauges)
    logs = [TokenLog(id=f"r{n}", tenant="t", candidate=candidate(), sent_at=Seconds(1.0)) for n in range(1200)]
    for each in logs:
        one.follow(each)
        each.times.append(2.0)
    began = clock.monotonic()
    assert one.gather()
    clock.advance(1.0)
    for each in logs:
        each.times.append(3.0)
    one.unfollow(logs[0])
    one.add(record("r0"))
    assert one.gather()
    one.cut(even_if_empty=True)
    (first,) = one.after(0)
    assert first.at == began
    assert [each.id for each in first.records] == ["r0"]
    seen = _times_by_id(first)
    assert seen.keys() == {each.id for each in logs}
    assert seen["r0"] == [2.0, 3.0]
    assert sum(map(len, seen.values())) in (
        1900,
        1901,
    )  # 500 were packed before their second came, r0 perhaps among them
    one.cut(even_if_empty=True)
    _, second = one.after(0)
    both = {name: [*times, *_times_by_id(second).get(name, [])] for name, times in seen.items()}
    assert set(map(tuple, both.values())) == {(2.0, 3.0)}
    assert second.at == clock.monotonic()


def _times_by_id(batch: Batch) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {}
    for stream in unpacked(batch.tokens):
        times.setdefault(stream.id, []).extend(stream.times)
    return times
