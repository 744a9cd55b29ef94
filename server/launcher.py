"""Holds the sockets, starts and restarts the planes, ends everything.

`python -m server.launcher PLAN.json`, where the plan (written by `wattgate up`) says what to listen on and what to
run. It imports the standard library only and knows nothing of requests, engines or configuration.

Why it exists: a listening socket that lives here survives the worker that served it, so a killed worker resets no
queued connection; and as subreaper of all its descendants it can end every one of them, whoever started it.
Children get SIGKILL when it dies (parent-death signal); engines get the same through their keepers.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

__all__ = ["EXIT_NOTHING_TO_SERVE", "main"]

EXIT_NOTHING_TO_SERVE: Final = 70
"""The control plane ends with this when every engine has been given up: do not start it again."""

EXIT_CANNOT_LISTEN: Final = 3

_PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>
_PR_SET_CHILD_SUBREAPER: Final = 36
_SIGNALS: Final = {signal.SIGCHLD, signal.SIGINT, signal.SIGTERM}
_BACKLOG: Final = 4096

_FIRST_BACKOFF_S: Final = 0.1
_MAX_BACKOFF_S: Final = 10.0
_STEADY_AFTER_S: Final = 10.0
"""A child that ran this long starts again at once; one that ended sooner waits twice as long as before."""

_CONTROL_STOP_S: Final = 40.0
_KEEPER_STOP_S: Final = 15.0


@dataclass(slots=True, kw_only=True)
class _Child:
    """One process to keep running."""

    name: str
    argv: list[str]
    fds: tuple[int, ...]
    cores: tuple[int, ...]
    """Empty: wherever the launcher may run."""
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float | None = None
    backoff_s: float = field(default=_FIRST_BACKOFF_S)

    @property
    def running(self) -> bool:
        return self.process is not None

    def start(self) -> None:
        # A session of its own: Ctrl-C in the terminal reaches the launcher only, which ends the others in order.
        self.process = subprocess.Popen(
            self.argv,
            pass_fds=self.fds,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            preexec_fn=functools.partial(_in_child, os.getpid(), self.cores),  # noqa: PLW1509  # the launcher has one thread
        )
        self.started_at = time.monotonic()
        self.restart_at = None

    def try_to_start(self) -> None:
        """Start; where the machine does not let us (no memory, no process left), say so and try again later."""
        try:
            self.start()
        except (OSError, subprocess.SubprocessError) as exc:
            _say(f"{self.name} could not be started ({exc}); trying again")
            self.schedule_restart()

    def send(self, number: int) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def schedule_restart(self) -> None:
        now = time.monotonic()
        if now - self.started_at >= _STEADY_AFTER_S:
            self.backoff_s = _FIRST_BACKOFF_S
        self.restart_at = now + self.backoff_s
        self.backoff_s = min(2 * self.backoff_s, _MAX_BACKOFF_S)


def main(argv: list[str] | None = None) -> int:
    """Run until told to stop; the exit status is 0 after a stop, 3 if a port is taken, 1 if nothing can be served."""
    arguments = sys.argv[1:] if argv is None else argv
    plan = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    with contextlib.ExitStack() as stack:
        try:
            listeners = _listen(plan, stack)
        except OSError as exc:
            _say(str(exc))
            return EXIT_CANNOT_LISTEN
        control, workers = _children(plan, listeners)
        status = _supervise([control, *workers], stop_on={control.name: EXIT_NOTHING_TO_SERVE})
        for listener in listeners.gateway:
            listener.close()
        _stop(control, workers, drain_s=float(plan["drain_timeout_s"]))
        _end_descendants()
    return status


# --- sockets ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listeners:
    gateway: list[socket.socket]
    control: socket.socket
    bus: socket.socket


def _listen(plan: dict[str, Any], stack: contextlib.ExitStack) -> _Listeners:
    gateway, control, count = plan["gateway"], plan["control"], int(plan["gateway"]["workers"])
    bus_path = Path(plan["bus"])
    bus_path.unlink(missing_ok=True)
    bus = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    bus.bind(str(bus_path))
    bus_path.chmod(0o600)
    bus.listen(_BACKLOG)
    # SO_REUSEPORT would share the port even with another gateway of this user: look first whether it is free.
    _tcp(gateway["host"], gateway["port"], "gateway.port", shared=False).close()
    return _Listeners(
        gateway=[
            stack.enter_context(_tcp(gateway["host"], gateway["port"], "gateway.port", shared=count > 1))
            for _ in range(count)
        ],
        control=stack.enter_context(_tcp(control["host"], control["port"], "control.port", shared=False)),
        bus=bus,
    )


def _tcp(host: str, port: int, setting: str, *, shared: bool) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as exc:
        listener.close()
        raise OSError(_why_not(host, port, setting, exc)) from exc
    return listener


def _why_not(host: str, port: int, setting: str, exc: OSError) -> str:
    return (
        f"cannot listen on {host} port {port}: {exc.strerror or exc}. "
        f"Stop what uses it (`ss -ltnp 'sport = :{port}'` shows it), or set `{setting}` to another."
    )


# --- children ---------------------------------------------------------------------------------------------------------


def _children(plan: dict[str, Any], listeners: _Listeners) -> tuple[_Child, list[_Child]]:
    control_fd, bus_fd = listeners.control.fileno(), listeners.bus.fileno()
    cores = tuple(plan["cores"])
    control = _Child(
        name="control plane",
        argv=[
            *plan["control_argv"],
            *("--listen-fd", str(control_fd), "--bus-fd", str(bus_fd), "--launcher-pid", str(os.getpid())),
        ],
        fds=(control_fd, bus_fd),
        cores=cores,
    )
    workers = [
        _Child(
            name=f"worker {slot}",
            argv=[*plan["gateway_argv"], "--slot", str(slot), "--listen-fd", str(listener.fileno())],
            fds=(listener.fileno(),),
            cores=cores,
        )
        for slot, listener in enumerate(listeners.gateway)
    ]
    return control, workers


def _in_child(launcher_pid: int, cores: tuple[int, ...]) -> None:
    """Between fork and exec: die with the launcher, stay on the planes' cores, take signals again."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher_pid:  # it died before the line above
        os._exit(1)
    if cores:
        os.sched_setaffinity(0, cores)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _supervise(children: list[_Child], *, stop_on: dict[str, int]) -> int:
    """Keep all children running until a signal or a child's final word; returns the launcher's exit status."""
    for child in children:
        child.try_to_start()
    while True:
        due = min((child.restart_at for child in children if child.restart_at is not None), default=None)
        timeout = 3600.0 if due is None else max(0.0, due - time.monotonic())
        info = signal.sigtimedwait(_SIGNALS, timeout)
        if info is not None and info.si_signo != signal.SIGCHLD:
            return 0
        for child, status in _ended(children):
            if stop_on.get(child.name) == status:
                return 1
            _say(f"{child.name} ended ({_how(status)}); starting another")
            child.schedule_restart()
        now = time.monotonic()
        for child in children:
            if child.restart_at is not None and child.restart_at <= now:
                child.try_to_start()


def _ended(children: list[_Child]) -> Iterator[tuple[_Child, int]]:
    """Reap everything that ended, adopted strangers too; yields our own children with their exit status."""
    by_pid = {child.process.pid: child for child in children if child.process is not None}
    for pid, status in _reap(lambda: os.waitpid(-1, os.WNOHANG)):
        child = by_pid.get(pid)
        if child is not None:
            _forget(child, status)
            yield child, status


def _reap(wait: Callable[[], tuple[int, int]]) -> Iterator[tuple[int, int]]:
    while True:
        try:
            pid, status = wait()
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, os.waitstatus_to_exitcode(status)


def _forget(child: _Child, status: int) -> None:
    assert child.process is not None
    child.process.returncode = status  # we reaped it ourselves; tell Popen, so that it does not try
    child.process = None


def _how(status: int) -> str:
    if status >= 0:
        return f"status {status}"
    known = {number.value: number.name for number in signal.Signals}  # real-time signals have no name
    return f"signal {known.get(-status, -status)}"


# --- the end ----------------------------------------------------------------------------------------------------------


def _stop(control: _Child, workers: list[_Child], *, drain_s: float) -> None:
    """Workers first (they finish what runs and hand over their records), then the control plane with its engines."""
    for worker in workers:
        worker.send(signal.SIGTERM)
    if not _wait_for(workers, drain_s + 5.0):
        _say("requests did not end in time; cutting them")
    for worker in workers:
        worker.send(signal.SIGKILL)
    control.send(signal.SIGTERM)
    _wait_for([control], _CONTROL_STOP_S)


def _wait_for(children: list[_Child], timeout: float) -> bool:
    """True when all have ended; False on time-out or on a second signal, which means: at once."""
    deadline = time.monotonic() + timeout
    while any(child.running for child in children):
        list(_ended(children))
        left = deadline - time.monotonic()
        if left <= 0:
            return not any(child.running for child in children)
        if not any(child.running for child in children):
            break
        info = signal.sigtimedwait(_SIGNALS, left)
        if info is not None and info.si_signo != signal.SIGCHLD:
            return False
    return True


def _end_descendants() -> None:
    """End whoever is left: keepers by SIGTERM, so that they end their engines; after a while all by SIGKILL."""
    deadline = time.monotonic() + _KEEPER_STOP_S
    asked: set[int] = set()
    while pids := _descendants():
        late = time.monotonic() >= deadline
        for pid in pids if late else set(_own_children()) - asked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
            asked.add(pid)
        signal.sigtimedwait({signal.SIGCHLD}, 0.2)
        list(_reap(lambda: os.waitpid(-1, os.WNOHANG)))


def _own_children() -> list[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
    return [int(pid) for pid in text.split()]


def _descendants() -> list[int]:
    found: list[int] = []
    waiting = _own_children()
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        with contextlib.suppress(OSError):
            waiting.extend(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split())
    return found


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")


def _say(message: str) -> None:
    sys.stderr.write(f"wattgate: {message}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
