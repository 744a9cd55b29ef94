"""A launcher and a control plane in one process, for a test that kills it: argv is CONFIG.json RUNTIME."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from server.clock import SystemClock
from server.config import Config
from server.control.supervisor import Supervisor
from server.fleet import EngineState

_PR_SET_CHILD_SUBREAPER = 36


async def main(config: Config) -> None:
    """Print the engine's process id once it is ready, and go on until killed."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    supervisor = Supervisor(
        config,
        runtime_dir=Path(sys.argv[2]),
        launcher_pid=os.getpid(),
        clock=SystemClock(),
        announce=lambda _: None,
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(supervisor.run())
        seen = 0
        while (replica := supervisor.replicas()[0]).state is not EngineState.READY:
            seen = await supervisor.wait_change(seen)
        print(replica.pid, flush=True)


if __name__ == "__main__":
    asyncio.run(main(Config.model_validate_json(Path(sys.argv[1]).read_bytes())))
