"""A control plane that is killed at any moment: what it acknowledged is in the ledger, and nothing is there twice."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
from pathlib import Path

import pytest

from server.clock import SystemClock
from server.gateway.bus import BusClient
from server.gateway.records import Recorder
from server.units import Seconds
from server.wire import PROTOCOL_VERSION, Hello
from tests.fakes.batches import gauges, record
from tests.ledger.ledger_process import socket_path
from tests.ledger.plane import BOUND, Plane

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
LIVES = 4


class ListeningRecorder(Recorder):
    """Knows how far it was acknowledged."""

    acknowledged: asyncio.Event

    def acknowledge(self, seq: int) -> None:
        self.acknowledged.set()
        super().acknowledge(seq)


class SteadyWorker:
    """A worker's real end of the bus, and requests that end all the time."""

    def __init__(self, folder: Path, number: int) -> None:
        self.name = f"boot-{number}"
        self.recorder = ListeningRecorder(
            max_backlog=1_000_000, clock=SystemClock(), gauges=lambda dropped: gauges(records_dropped=dropped)
        )
        self.recorder.acknowledged = asyncio.Event()
        hello = Hello(version=PROTOCOL_VERSION, slot=number, pid=1, boot=self.name)
        flush_every = Seconds(0.01)
        self.client = BusClient(
            socket_path(folder), hello, self.recorder, on_news=lambda _: None, flush_every=flush_every
        )
        self.sent = 0

    async def run(self) -> None:
        talking = asyncio.create_task(self.client.run())
        try:
            while True:
                for _ in range(10):
                    self.recorder.add(record(id=f"{self.name}-{self.sent}"))
                    self.sent += 1
                await asyncio.sleep(0.01)
        finally:
            talking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await talking


async def control_plane(folder: Path, url: str | None) -> asyncio.subprocess.Process:
    arguments = [str(folder), *([url] if url else [])]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.ledger.ledger_process", *arguments, cwd=ROOT
    )


@pytest.mark.timeout(240)
async def test_nothing_acknowledged_is_missing_and_nothing_is_there_twice(tmp_path: Path, url: str | None) -> None:
    chance = random.Random(20251121)
    workers = [SteadyWorker(tmp_path, number) for number in range(2)]
    running = [asyncio.create_task(worker.run()) for worker in workers]
    look = Plane(tmp_path, url, SystemClock())
    for _ in range(LIVES):
        process = await control_plane(tmp_path, url)
        async with asyncio.timeout(BOUND):
            for worker in workers:
                worker.recorder.acknowledged.clear()
                await worker.recorder.acknowledged.wait()
        await asyncio.sleep(chance.random() * 0.4)  # then at any moment of any transaction
        process.send_signal(signal.SIGKILL)
        await process.wait()
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    process = await control_plane(tmp_path, url)
    try:
        await _hand_in(workers)
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()

    sent = sum(worker.sent for worker in workers)
    assert all(worker.recorder.dropped == 0 for worker in workers)
    assert look.rows("SELECT count(*), count(DISTINCT id) FROM records") == [(sent, sent)]
    for table in ("usage_hours", "usage_days"):
        assert look.rows(f"SELECT sum(requests) FROM {table}") == [(sent,)]
    assert look.rows("SELECT count(*) FROM lifetimes") == [(LIVES + 1,)]


async def _hand_in(workers: list[SteadyWorker]) -> None:
    for worker in workers:
        talking = asyncio.create_task(worker.client.run())
        assert await worker.client.flush(BOUND)
        talking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await talking
