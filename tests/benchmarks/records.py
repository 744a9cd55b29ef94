"""What telemetry costs from a worker's record to the control plane's aggregates: `python -m tests.benchmarks.records`.

Records and token times of made-up traffic go through the real parts: the recorder, the wire, all of metering (traffic,
energy, carbon, budgets, efficiency, ledger), the log. The clock is a fake one, so that a minute of traffic takes
seconds; what is measured is CPU time of this thread, and of all others (the ledger's writer) apart. The parts that
begin with `worker` run in the gateway, the others in the control plane. The core's share is of the time that the
traffic would have taken.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from server.config import Config, TelemetrySettings
from server.control.metering import Metering
from server.gateway.records import Recorder
from server.gateway.token_log import TokenLog
from server.telemetry import Exposition, LabelCaps, RequestLog, Sources
from server.units import Seconds
from server.wire import LENGTH_BYTES, Batch, Candidate, RequestRecord, decode_to_control, encode
from tests.fakes.batches import gauges, record, replica, worker
from tests.fakes.clock import FakeClock

_FLUSH_S = 0.25
_TENANTS = [f"tenant-{number}" for number in range(5)]
_OPENMETRICS = "application/openmetrics-text; version=1.0.0"
_SCRAPES = 10
_WATTS = 200
_LONGEST_S = 60


@dataclass(slots=True)
class Stopwatch:
    """CPU seconds by part, and the longest single call of each."""

    total: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    longest: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        began = time.thread_time()
        yield
        took = time.thread_time() - began
        self.total[name] += took
        self.longest[name] = max(took, self.longest.get(name, 0.0))

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same, with its time noted."""

        def timed(*arguments: Any, **named: Any) -> Any:
            with self.part(name):
                return call(*arguments, **named)

        return timed


def _config(folder: Path) -> Config:
    """Everything on; a meter that counts evenly."""
    lines = [json.dumps({"t_s": second, "joules_total": _WATTS * second}) for second in range(_LONGEST_S)]
    (folder / "meter.jsonl").write_text("\n".join(lines), "utf-8")
    engine = {"name": "engine-0", "model": "m", "precision": "bf16", "url": "http://127.0.0.1:9"}
    return Config.model_validate(
        {
            "state_dir": str(folder),
            "engines": [engine],
            "energy": {"meters": [{"kind": "replay", "path": str(folder / "meter.jsonl")}]},
            "carbon": {"grams_per_kwh": 400},
            "cost": {"price_per_kwh": 0.3},
            "budgets": [{"tenant": "*", "joules": 1e12, "tokens": 10**12}],
        }
    )


class Plant:
    """A worker's recorder and a control plane's consumers, in one thread."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.watch = Stopwatch()
        self.replicas = [replica(name=f"engine-{number}") for number in range(3)]
        self.candidates = [
            Candidate(
                replica=one.name,
                model=one.model,
                variant=one.variant,
                precision=one.precision,
                adapter=adapter,
                upstream_model="m",
                answer_model="m",
            )
            for one in self.replicas
            for adapter in ("none", "json")
        ]
        caps = LabelCaps(TelemetrySettings(), self.clock)
        self.recorder = Recorder(
            max_backlog=10**9, clock=self.clock, gauges=lambda dropped: gauges(records_dropped=dropped)
        )
        self.metering = Metering(
            _config(folder),
            replicas=lambda: self.replicas,
            caps=caps,
            clock=self.clock,
            publish=lambda news: None,
        )
        self._time_parts()
        self._log = RequestLog(folder / "requests.jsonl", self.clock)
        sources = Sources(
            traffic=self.metering.traffic,
            replicas=lambda: self.replicas,
            version="1",
            energy=self.metering.energy.snapshot,
            samples=self.metering.samples,
        )
        self.exposition = Exposition(sources, caps=caps, clock=self.clock)
        self._flushes = 0
        if self.metering.ledger is not None:
            self.metering.ledger.start(lambda worker, seq: None, version="1")
        self.metering.tick()
        self.began = self.clock.monotonic()
        self._others_began = self._others_s()

    def _time_parts(self) -> None:
        """What metering calls, each by its name; what it does itself is `metering`."""
        one = self.metering
        for owner, verbs in (
            ("traffic", ("take", "take_energies", "now")),
            ("energy", ("take", "tick", "take_postings")),
            ("footprint", ("post",)),
            ("budgets", ("take_records", "take_energy")),
            ("ledger", ("take", "post")),
            ("_sampler", ("take",)),
        ):
            part = getattr(one, owner)
            for verb in verbs:
                setattr(part, verb, self.watch.timed(f"{owner.strip('_')} {verb}", getattr(part, verb)))

    @staticmethod
    def _others_s() -> float:
        return time.process_time() - time.thread_time()

    @property
    def others_s(self) -> float:
        """CPU time of the other threads."""
        return self._others_s() - self._others_began

    async def close(self) -> None:
        """Write what waits."""
        if self.metering.ledger is not None:
            await self.metering.ledger.stop(Seconds(60.0))
        self.metering.energy.close()

    def flush(self) -> None:
        """A quarter of a second has passed."""
        self.clock.advance(_FLUSH_S)
        with self.watch.part("worker cut"):
            self.recorder.cut(even_if_empty=True)
        for batch in list(self.recorder.after(0)):
            with self.watch.part("worker encode"):
                frame = encode(batch)
            self.recorder.acknowledge(batch.seq)
            self._consume(frame[LENGTH_BYTES:])
        self._flushes += 1
        if self._flushes % round(1 / _FLUSH_S) == 0:
            self.metering.tick()

    def look(self) -> None:
        """Count what waits to be counted; then a few scrapes."""
        self.metering.traffic.now()
        self.exposition.render()
        for name, accept in (("scrape text", ""), ("scrape openmetrics", _OPENMETRICS)):
            for _ in range(_SCRAPES):
                with self.watch.part(name):
                    self.exposition.render(accept)

    def _consume(self, frame: bytes) -> None:
        with self.watch.part("decode"):
            batch = decode_to_control(frame)
        assert isinstance(batch, Batch)
        self.metering.take(batch, worker())
        with self.watch.part("log"):
            self._log.write(batch.records)


@dataclass(slots=True)
class Stream:
    """One that runs: its times are appended where the gateway appends them."""

    log: TokenLog
    wanted: int
    next_at: float
    first_at: float | None = None
    chunks: int = 0

    def run(self, until: float, gap_s: float) -> bool:
        """Get the chunks up to `until`; whether it has ended."""
        while self.next_at < until and self.chunks < self.wanted:
            self.first_at = self.first_at or self.next_at
            self.log.times.append(self.next_at)
            self.chunks += 1
            self.next_at += gap_s
        return self.chunks >= self.wanted


def whole_answers(plant: Plant, *, per_second: int, seconds: int) -> tuple[int, int]:
    """Requests whose answer is one piece; returns how many records and token times there were."""
    number = 0
    for _ in range(round(seconds / _FLUSH_S)):
        now = plant.clock.monotonic()
        ended = []
        for place in range(round(per_second * _FLUSH_S)):
            sent_at = now + place / per_second
            one = plant.candidates[number % len(plant.candidates)]
            ended.append(_record(f"r-{number:x}", _TENANTS[number % 5], one, sent_at, None, sent_at + 0.05, 0))
            number += 1
        with plant.watch.part("worker add"):
            for one_record in ended:
                plant.recorder.add(one_record)
        plant.flush()
    return number, 0


def streams(plant: Plant, *, open_: int, per_second: float, length: int, seconds: int) -> tuple[int, int]:
    """`open_` streams at any time, each with `per_second` chunks; one that ends is followed by another."""
    begun = records = chunks = 0

    def begin(at: float) -> Stream:
        nonlocal begun
        one = plant.candidates[begun % len(plant.candidates)]
        log = TokenLog(id=f"s-{begun:x}", tenant=_TENANTS[begun % 5], candidate=one, sent_at=Seconds(at))
        plant.recorder.follow(log)
        begun += 1
        return Stream(log, length, at + 0.02 + (begun % 97) / 97 / per_second)

    running = [begin(plant.clock.monotonic()) for _ in range(open_)]
    for place, stream in enumerate(running):
        stream.wanted = max(1, length * (place + 1) // open_)  # so that they do not all end at once
    for _ in range(round(seconds / _FLUSH_S)):
        until = plant.clock.monotonic() + _FLUSH_S
        ended = []
        for place, stream in enumerate(running):
            if stream.run(until, 1 / per_second):
                ended.append(stream)
                running[place] = begin(stream.next_at)
        with plant.watch.part("worker add"):
            for stream in ended:
                log = stream.log
                plant.recorder.unfollow(log)
                done_at = stream.next_at
                plant.recorder.add(
                    _record(log.id, log.tenant, log.candidate, log.sent_at, stream.first_at, done_at, stream.chunks)
                )
        records += len(ended)
        chunks += sum(stream.chunks for stream in ended)
        plant.flush()
    return records, chunks + sum(stream.chunks for stream in running)


def _record(
    id_: str, tenant: str, one: Candidate, sent_at: float, first_at: float | None, done_at: float, chunks: int
) -> RequestRecord:
    return record(
        id=id_,
        tenant=tenant,
        model=one.model,
        variant=one.variant,
        precision=one.precision,
        adapter=one.adapter,
        engine=one.replica,
        streamed=first_at is not None,
        received_at=sent_at - 0.0001,
        sent_at=sent_at,
        first_byte_at=first_at or done_at,
        first_token_at=first_at,
        last_token_at=done_at if first_at else None,
        upstream_done_at=done_at,
        ended_at=done_at + 0.0001,
        output_tokens=chunks or 64,
        token_chunks=chunks,
    )


async def _measure(title: str, traffic: Callable[[Plant], tuple[int, int]]) -> None:
    with TemporaryDirectory() as folder:
        plant = Plant(Path(folder))
        records, chunks = traffic(plant)
        seconds = plant.clock.monotonic() - plant.began
        plant.look()
        await plant.close()
        others_s, method = plant.others_s, plant.metering.energy.attribution.method
    print(f"\n{title}: {records} records, {chunks} token times; attribution {method}")
    print(f"  {'part':22} {'us/record':>10} {'us/token':>10} {'of a core':>10} {'longest ms':>11}")
    total, longest = plant.watch.total, plant.watch.longest
    scrapes = [name for name in total if name.startswith("scrape")]
    parts = [name for name in total if name not in scrapes]
    for name in sorted(parts):
        print(_row(name, total[name], records, chunks, seconds) + f" {1e3 * longest[name]:11.2f}")
    for side, ours in (("= worker", True), ("= control plane", False)):
        spent = sum(total[name] for name in parts if name.startswith("worker") is ours)
        print(_row(side, spent, records, chunks, seconds))
    print(_row("+ other threads", others_s, records, chunks, seconds))
    for name in scrapes:
        print(f"  {name}: {1e3 * total[name] / _SCRAPES:.1f} ms")
    print(f"  memory of all this: {psutil.Process().memory_info().rss / 1e6:.0f} MB")


def _row(name: str, spent: float, records: int, chunks: int, seconds: float) -> str:
    a_token = f"{1e6 * spent / chunks:10.3f}" if chunks else f"{'-':>10}"
    return f"  {name:22} {1e6 * spent / max(1, records):10.2f} {a_token} {spent / seconds:10.2%}"


async def main() -> None:
    await _measure("5,000 whole answers a second", lambda plant: whole_answers(plant, per_second=5000, seconds=12))
    await _measure(
        "64 streams, 40 chunks a second each",
        lambda plant: streams(plant, open_=64, per_second=40, length=64, seconds=40),
    )
    await _measure(
        "5,000 tokens a second: 125 streams, 40 chunks a second each",
        lambda plant: streams(plant, open_=125, per_second=40, length=64, seconds=40),
    )
    await _measure(
        "5,000 streams, 2 chunks a second each",
        lambda plant: streams(plant, open_=5000, per_second=2, length=60, seconds=15),
    )


if __name__ == "__main__":
    asyncio.run(main())
