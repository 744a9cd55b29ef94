"""A control plane's bus and ledger as a process that may be killed: FOLDER [URL].

Books a microjoule for each record, as the energy of the request and to its tenant's account.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

from server.accounts import RecordKey
from server.clock import SystemClock
from server.config import LedgerSettings
from server.control.bus import Bus
from server.ledger.ledger import Ledger
from server.units import Microjoules
from server.wire import Batch, Hello
from tests.ledger.plane import RATES, energy_of, posting

__all__ = ["socket_path"]


def socket_path(folder: Path) -> Path:
    return folder / "bus.sock"


async def _serve(folder: Path, url: str | None) -> None:
    ledger = Ledger(LedgerSettings(url=url), state_dir=folder, clock=SystemClock())
    path = socket_path(folder)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()

    def take(batch: Batch, worker: Hello) -> bool:
        keys = [RecordKey(worker.boot, batch.seq, place) for place in range(len(batch.records))]
        if keys:
            ledger.post([energy_of(key, 1, 0) for key in keys], {posting(): Microjoules(len(keys))}, RATES)
        return ledger.take(batch, worker)

    bus = Bus(listener, take=take, joined=lambda _: None, left=lambda _: None, lease_wanted=lambda *_: None)
    ledger.start(bus.acknowledge, version="1")
    await bus.serve()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None))
