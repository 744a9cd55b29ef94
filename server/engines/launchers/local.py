"""Engines as processes of this machine, each under a keeper."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from server.engines import keeper
from server.engines.launchers.launcher import Exit, Order, Running, TransientStartError
from server.engines.launchers.state_file import EngineRecord, digest_of, exit_file, read_record, record_file
from server.engines.log_file import rotate
from server.errors import StartError
from server.units import Seconds

__all__ = ["LocalLauncher"]

_KEEPER: Final = Path(keeper.__file__)
_HANDSHAKE_TIMEOUT_S: Final = 20.0
_GRACE_S: Final = 8.0
"""For an engine to end by itself. The launcher gives keepers 15 s in all."""
_STOP_TIMEOUT_S: Final = 16.0
_FORCED_TIMEOUT_S: Final = 4.0


class LocalLauncher:
    """Starts engines here. They survive the control plane and end with the launcher process."""

    async def launch(self, order: Order) -> Running:
        port, api_key = _free_port(), secrets.token_urlsafe(32)
        # In a thread: finding out whether the engine is installed may run its Python.
        command = await asyncio.to_thread(order.engine.command, order.spec, port=port, api_key=api_key)
        identity = await asyncio.to_thread(_identity, order)
        plan = {
            "argv": command.argv,
            "env": dict(command.env),
            "cwd": str(order.state_dir),
            "cores": order.start_cores,
            "log": str(order.log),
            "grace_s": _GRACE_S,
            "launcher": _process(order.launcher_pid),
            "state_file": str(record_file(order.state_dir, order.name)),
            "exit_file": str(exit_file(order.state_dir, order.name)),
            "state": {
                "name": order.name,
                "digest": identity,
                "port": port,
                "api_key": api_key,
                "restarts": order.restarts,
                "log": str(order.log),
            },
        }
        await asyncio.to_thread(_start_keeper, order, plan)
        record = read_record(record_file(order.state_dir, order.name))
        running = None if record is None else _LocalEngine.watch(order.state_dir, record)
        if running is None:
            raise TransientStartError(f"The keeper of {order.name!r} ended at once. See {order.log}.")
        return running

    async def adopt(self, order: Order) -> Running | None:
        record = read_record(record_file(order.state_dir, order.name))
        running = None if record is None else _LocalEngine.watch(order.state_dir, record)
        if record is None or running is None:
            return None
        if await _is_of(record, order):
            return running
        await running.stop()
        return None

    async def keeps(self, order: Order) -> bool:
        record = read_record(record_file(order.state_dir, order.name))
        return record is None or await _is_of(record, order)

    async def end_strangers(self, state_dir: Path, known: frozenset[str]) -> list[str]:
        ended = []
        for record in _records(state_dir):
            if record.name in known:
                continue
            if (running := _LocalEngine.watch(state_dir, record)) is not None:
                await running.stop()
                ended.append(record.name)
            record_file(state_dir, record.name).unlink(missing_ok=True)
        return ended


class _LocalEngine:
    """An engine whose keeper is watched by a pidfd: its end is seen at once, whoever the keeper's parent is."""

    def __init__(self, state_dir: Path, record: EngineRecord, pidfd: int) -> None:
        self._state_dir = state_dir
        self._record = record
        self._pidfd: int | None = pidfd
        self.url = f"http://127.0.0.1:{record.port}"
        self.api_key: str | None = record.api_key
        self.pid: int | None = record.engine
        self.log: Path | None = Path(record.log)
        self.started_at: Seconds | None = Seconds(record.started_at)
        self.restarts = record.restarts

    @classmethod
    def watch(cls, state_dir: Path, record: EngineRecord) -> _LocalEngine | None:
        """None if it has ended already."""
        try:
            pidfd = os.pidfd_open(record.keeper)
        except ProcessLookupError:
            return None
        # Asked after opening: the descriptor then belongs to this very process, not to a later one of the same number.
        if keeper.start_time(record.keeper) != record.keeper_start:
            os.close(pidfd)
            return None
        return cls(state_dir, record, pidfd)

    async def wait(self) -> Exit:
        if self._pidfd is not None:
            await _readable(self._pidfd)
            self.let_go()
        return await asyncio.to_thread(self._exit)

    async def stop(self) -> None:
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FORCED_TIMEOUT_S):
                    await self.wait()
            self.let_go()

    def let_go(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _signal(self, number: signal.Signals) -> None:
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _exit(self) -> Exit:
        """What the keeper wrote last; a keeper that was killed wrote nothing, and may have left something running."""
        try:
            data = json.loads(exit_file(self._state_dir, self._record.name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            _kill_session(self._record.engine)
            return Exit(code=None, signal=None)
        return Exit(code=data["code"], signal=data["signal"])


def _records(state_dir: Path) -> list[EngineRecord]:
    found = (read_record(path) for path in sorted(state_dir.glob("*.json")))
    return [record for record in found if record is not None]


async def _is_of(record: EngineRecord, order: Order) -> bool:
    """Whether the order would start just what the record says was started."""
    try:
        return record.digest == await asyncio.to_thread(_identity, order)
    except StartError:
        return False


def _identity(order: Order) -> str:
    return digest_of(order.engine.command(order.spec, port=0, api_key=""), order.spec.settings.checkpoint)


def _process(pid: int) -> dict[str, int]:
    start = keeper.start_time(pid)
    if start is None:
        raise StartError(f"The launcher (process {pid}) has ended, so no engine may start.")
    return {"pid": pid, "start": start}


def _start_keeper(order: Order, plan: dict[str, Any]) -> None:
    order.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    exit_file(order.state_dir, order.name).unlink(missing_ok=True)
    rotate(order.log)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(_KEEPER), order.name],
            input=json.dumps(plan).encode(),
            capture_output=True,
            check=False,
            timeout=_HANDSHAKE_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        # A slow machine: should the keeper come up after all, the next try takes it over.
        raise TransientStartError(f"Engine {order.name!r} could not be started: {exc}.") from exc
    if done.returncode != 0:
        raise StartError(f"Engine {order.name!r} could not be started: {_reason(done)}.")


def _reason(done: subprocess.CompletedProcess[bytes]) -> str:
    try:
        return str(json.loads(done.stdout)["error"])
    except (ValueError, KeyError):
        return (done.stderr.decode(errors="replace").strip() or f"its keeper ended with status {done.returncode}")[
            -500:
        ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, wake)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


def _kill_session(leader: int) -> None:
    """Kill what a killed keeper left: the engine runs in a session of its own, led by its root."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if os.getsid(int(entry.name)) == leader:
                    os.kill(int(entry.name), signal.SIGKILL)
