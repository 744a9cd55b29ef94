"""What the ledger takes and answers: `python -m tests.benchmarks.ledger [--rows N] [--url URL] [--ids client]`.

Made-up traffic of 180 kinds of requests, with an energy for each and postings to 360 accounts a second, goes through
the real ledger: taken as the control plane takes it, written by its thread. First as fast as it can be written, then
spread over a month, which is then asked about. Traffic is made in the same process, which costs a part of the speed.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
import psutil

from server.accounts import Account, Phase, Posting, Rates, RecordKey, RequestEnergy
from server.config import LedgerSettings
from server.ledger.ledger import Ledger
from server.ledger.period import DAY_S, Period
from server.units import Microjoules, Seconds
from server.wire import Batch, Hello, RequestRecord
from tests.fakes.batches import batch, record, worker
from tests.fakes.clock import FakeClock

_MONTH_S: Final = 30 * DAY_S
_BATCH: Final = 1000
_BATCHES_A_SECOND: Final = 20
"""By the fake clock; that often is energy posted."""
_MOST_WAITING: Final = 20_000
_ENGINES, _ADAPTERS, _TENANTS = 3, 3, 20
_RATES: Final = Rates(grams_per_joule=1e-4, cost_per_joule=8e-8, currency="EUR", source="configured", kind="average")
_BOUND: Final = Seconds(600.0)
_REPEAT: Final = 15
_BEGAN: Final = 1_800_000_000.0 // DAY_S * DAY_S


class Traffic:
    """Records of every engine, adapter and tenant, in no order, and what they used."""

    def __init__(self, rows: int, *, client_ids: bool) -> None:
        self._chance = random.Random(4)
        self._rows = rows
        self._client_ids = client_ids
        self._kinds = [
            record(
                engine=f"engine-{e}", variant=f"int{e}", precision=f"int{e}", adapter=f"adapter-{a}", tenant=f"t{t:02}"
            )
            for e in range(_ENGINES)
            for a in range(_ADAPTERS)
            for t in range(_TENANTS)
        ]
        self.postings = {posting: Microjoules(1_000_000) for kind in self._kinds for posting in _postings(kind)}

    def batches(self, hello: Hello, clock: FakeClock) -> Iterator[tuple[Batch, list[RequestEnergy]]]:
        ids = (f"{hello.boot}-{number:x}" for number in count(1))
        if self._client_ids:
            ids = (f"{self._chance.getrandbits(128):032x}" for _ in count())
        for seq in range(1, self._rows // _BATCH + 1):
            kinds = self._chance.choices(self._kinds, k=_BATCH)
            now = clock.monotonic()
            records = [
                msgspec.structs.replace(kind, id=next(ids), received_at=now - 1.0, ended_at=now + place * 1e-5)
                for place, kind in enumerate(kinds)
            ]
            yield batch(seq, records=records), [_used(hello, seq, place, one) for place, one in enumerate(records)]


def _postings(kind: RequestRecord) -> Iterator[Posting]:
    for phase in (Phase.PREFILL, Phase.DECODE):
        yield Posting(
            device="gpu:0",
            scope="gpu",
            engine=str(kind.engine),
            model=str(kind.model),
            variant=str(kind.variant),
            precision=str(kind.precision),
            adapter=kind.adapter,
            tenant=kind.tenant,
            account=Account.ACTIVE,
            phase=phase,
        )


def _used(hello: Hello, seq: int, place: int, one: RequestRecord) -> RequestEnergy:
    labels = (str(one.engine), str(one.model), str(one.variant), str(one.precision), one.adapter)
    return RequestEnergy(
        key=RecordKey(hello.boot, seq, place),
        id=one.id,
        labels=labels,
        prefill=Microjoules(40_000 + place),
        decode=Microjoules(900_000 + place),
        scope="gpu",
        method="phase_time",
        confidence=0.9,
        completed=True,
        whole=True,
    )


async def _write(ledger: Ledger, traffic: Traffic, clock: FakeClock, *, batch_s: float) -> tuple[float, float, float]:
    """Seconds from the first record to the last commit, CPU seconds of the writing thread, of `take` and `post`."""
    hello = worker("0123456789abcdef")
    acknowledged = asyncio.Event()
    ledger.start(lambda _worker, _seq: acknowledged.set(), version="benchmark")
    await ledger.flush(_BOUND)
    taking = 0.0
    began, cpu = time.perf_counter(), _other_threads()
    for one, finals in traffic.batches(hello, clock):
        before = time.thread_time()
        ledger.take(one, hello)
        ledger.post(finals, traffic.postings if one.seq % _BATCHES_A_SECOND == 0 else {}, _RATES)
        taking += time.thread_time() - before
        clock.advance(batch_s)
        while ledger.state().waiting > _MOST_WAITING:
            acknowledged.clear()
            await acknowledged.wait()
    assert await ledger.flush(_BOUND)
    return time.perf_counter() - began, _other_threads() - cpu, taking


def _other_threads() -> float:
    times = psutil.Process().cpu_times()
    return times.user + times.system - time.thread_time()


def _milliseconds(call: Callable[[], object]) -> tuple[float, float]:
    """Of some calls: the median by the clock, and of the CPU time."""
    clock, cpu = [], []
    for _ in range(_REPEAT):
        began, busy = time.perf_counter(), time.thread_time()
        call()
        clock.append(1e3 * (time.perf_counter() - began))
        cpu.append(1e3 * (time.thread_time() - busy))
    return statistics.median(clock), statistics.median(cpu)


def _ask(ledger: Ledger, rows: int) -> None:
    month = Period(_BEGAN, _BEGAN + _MONTH_S)
    ragged = Period(_BEGAN + 7 * 3600, _BEGAN + _MONTH_S - 5 * 3600)
    queries: dict[str, Callable[[], object]] = {
        "a month by tenant": lambda: ledger.queries.energy(["tenant"], month),
        "a month by tenant, from 07:00 to 19:00": lambda: ledger.queries.energy(["tenant"], ragged),
        "a month by all five labels": lambda: ledger.queries.energy(
            ["tenant", "adapter", "variant", "engine", "model"], month
        ),
        "a request by its id": lambda: ledger.queries.request(f"0123456789abcdef-{rows // 2:x}"),
    }
    for title, query in queries.items():
        clock, cpu = _milliseconds(query)
        print(f"  {title:45} {clock:10.1f} ms ({cpu:.1f} ms CPU)")
    began = time.perf_counter()
    exported = sum(1 for _ in ledger.queries.export(Period(_BEGAN, _BEGAN + DAY_S)))
    print(f"  {'export of a day':45} {exported / (time.perf_counter() - began):10,.0f} rows/s")


async def _sustained(arguments: argparse.Namespace, folder: Path) -> None:
    clock = FakeClock(monotonic=1000.0, wall=_BEGAN)
    ledger = Ledger(LedgerSettings(url=arguments.url), state_dir=folder, clock=clock)
    traffic = Traffic(arguments.rows, client_ids=arguments.ids == "client")
    before = psutil.Process().memory_info().rss
    seconds, writing, taking = await _write(ledger, traffic, clock, batch_s=1 / _BATCHES_A_SECOND)
    rows = ledger.state().rows
    print(f"{rows:,} records with their energies, and the sums:")
    print(f"  {'sustained':45} {rows / seconds:10,.0f} rows/s")
    print(f"  {'writing, CPU time of its thread':45} {1e6 * writing / rows:10.1f} us/row")
    print(f"  {'take and post on the event loop, CPU time':45} {1e6 * taking / rows:10.1f} us/row")
    print(f"  {'memory added':45} {(psutil.Process().memory_info().rss - before) / 1e6:10.1f} MB")
    await ledger.stop(_BOUND)
    if arguments.url is None:
        print(f"  {'file':45} {_size(folder) / rows:10,.0f} bytes/row")


async def _month(arguments: argparse.Namespace, folder: Path) -> None:
    clock = FakeClock(monotonic=1000.0, wall=_BEGAN)
    ledger = Ledger(LedgerSettings(), state_dir=folder, clock=clock)
    traffic = Traffic(arguments.rows, client_ids=False)
    await _write(ledger, traffic, clock, batch_s=_MONTH_S * _BATCH / arguments.rows)
    print(f"{ledger.state().rows:,} records over a month, in SQLite:")
    await asyncio.to_thread(_ask, ledger, arguments.rows)
    await ledger.stop(_BOUND)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description="What the ledger takes and answers.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--url", help="default: SQLite in a temporary folder")
    parser.add_argument("--ids", choices=("gateway", "client"), default="gateway", help="client: random, in no order")
    arguments = parser.parse_args()
    for part in (_sustained, _month):
        with TemporaryDirectory() as folder:
            asyncio.run(part(arguments, Path(folder)))


if __name__ == "__main__":
    main()
