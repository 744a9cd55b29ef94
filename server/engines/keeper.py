"""One tiny process per local engine: nothing of it outlives its launcher.

Runs as a plain script (`python -I -S keeper.py NAME`, standard library only: every byte here is paid once an engine).
The plan comes as JSON on standard input, because it holds the engine's API key. What happens, in order:

1. The process that the control plane started forks and ends, once it has said how the start went. The keeper proper is
   thereby handed to the launcher: a killed control plane leaves engines running, and the next one adopts them.
2. The keeper becomes the reaper of everything below it and starts the engine in a session of its own, its output in a
   log file. The engine's root process is killed by the kernel if the keeper dies.
3. It waits for the first of: the engine's root ends, the launcher ends, SIGTERM. Then it ends every descendant
   (politely within the plan's grace, by force after it), writes the exit file and ends itself.

The launcher is watched by a pidfd, not by PR_SET_PDEATHSIG: that signal follows a *thread* of the parent, and comes
only from a direct parent, which the launcher is not where somebody else reaps orphans.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
from typing import Any, NoReturn

__all__ = ["descendants", "main", "start_time"]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# Source: prctl(2), linux/prctl.h.

_LEFTOVER_GRACE_S = 2.0
"""For descendants whose root has ended already: vLLM's workers notice it by themselves, mostly."""
_TICK_S = 0.05


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of process `pid`; with the pid it names one process for ever. None: ended."""
    fields = _stat(pid)
    # Fields 3 and 22 of proc_pid_stat(5), counted from 1; the first two are cut off.
    return None if fields is None or fields[0] in ("Z", "X") else int(fields[19])


def descendants(root: int) -> list[int]:
    """Every living process below `root`, parents before children; zombies are not living."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208  # a Path a process would cost more than the rest of this
        if entry.isdigit() and (fields := _stat(int(entry))) is not None and fields[0] not in ("Z", "X"):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found: list[int] = []
    frontier = [root]
    while frontier:
        frontier = [child for parent in frontier for child in children.get(parent, [])]
        found += frontier
    return found


def _stat(pid: int) -> list[str] | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            # The process's name may hold spaces and brackets: all before the last bracket is dropped.
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def main() -> int:
    """Start a keeper; returns once the engine's root process runs (0), or could not be started (1)."""
    plan = json.load(sys.stdin)
    answer_r, answer_w = os.pipe()
    if os.fork() == 0:
        os.close(answer_r)
        _keep(plan, answer_w)
    os.close(answer_w)
    with os.fdopen(answer_r, encoding="utf-8") as pipe:
        answer = pipe.read() or '{"error": "the keeper ended before it could start the engine"}'
    sys.stdout.write(answer)
    return 1 if "error" in json.loads(answer) else 0


def _keep(plan: dict[str, Any], answer_w: int) -> NoReturn:
    """The keeper's whole life."""
    code = 1
    try:
        os.setsid()
        os.umask(0o077)
        _silence()
        launcher = _pidfd(plan["launcher"]["pid"], plan["launcher"]["start"])
        wake_r = _listen()
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        engine = _start_engine(plan, prctl)
        _answer(plan, engine, answer_w)
        status = _wait(engine, launcher, wake_r)
        status = _end_all(engine, status, plan["grace_s"])
        _write(plan["exit_file"], _as_exit(status))
        code = 0
    except Exception as exc:  # noqa: BLE001  # outermost: whoever started it must hear of it
        with contextlib.suppress(OSError):
            os.write(answer_w, json.dumps({"error": f"{type(exc).__name__}: {exc}"}).encode())
    finally:
        os._exit(code)


def _silence() -> None:
    """Let go of the control plane's pipes: it waits for their end."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


def _pidfd(pid: int, start: int) -> int:
    fd = os.pidfd_open(pid)
    if start_time(pid) != start:
        raise ProcessLookupError(f"the launcher (process {pid}) is gone")
    return fd


def _listen() -> int:
    """A descriptor that becomes readable with SIGTERM and with every ended child."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # whatever the parents blocked
    wake_r, wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return wake_r


def _start_engine(plan: dict[str, Any], prctl: Any) -> int:
    """Fork and execute the engine's root process; raises `OSError` if its program cannot be executed."""
    log = os.open(plan["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    failure_r, failure_w = os.pipe2(os.O_CLOEXEC)
    keeper = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != keeper:  # it died before the line above could notice
                os._exit(1)
            _become(plan, log)
        except OSError as exc:
            os.write(failure_w, f"{exc.strerror}: {plan['argv'][0]}".encode())
        finally:
            os._exit(127)
    os.close(log)
    os.close(failure_w)
    with os.fdopen(failure_r, encoding="utf-8") as pipe:
        if failure := pipe.read():
            raise OSError(failure)
    return pid


def _become(plan: dict[str, Any], log: int) -> NoReturn:
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    os.umask(0o022)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if plan["cores"]:
        os.sched_setaffinity(0, plan["cores"])
    environ = dict(os.environ)  # noqa: TID251  # an engine inherits it (PATH, HOME, proxies), with the plan on top
    for name, value in plan["env"].items():
        if value is None:
            environ.pop(name, None)
        else:
            environ[name] = value
    os.chdir(plan["cwd"])
    os.execve(plan["argv"][0], plan["argv"], environ)  # noqa: S606  # no shell is the point


def _answer(plan: dict[str, Any], engine: int, answer_w: int) -> None:
    """Leave the state file before anybody is told, so that no engine runs that a next control plane cannot find."""
    pids = {
        "keeper": os.getpid(),
        "keeper_start": start_time(os.getpid()),
        "engine": engine,
        "started_at": time.monotonic(),
    }
    _write(plan["state_file"], {**plan["state"], **pids})
    os.write(answer_w, json.dumps(pids).encode())
    os.close(answer_w)


def _write(path: str, value: dict[str, Any]) -> None:
    """Whole or not at all; readable by nobody else (umask)."""
    with open(f"{path}.new", "w", encoding="utf-8") as file:  # noqa: PTH123
        json.dump(value, file)
    os.rename(f"{path}.new", path)  # noqa: PTH104


def _wait(engine: int, launcher: int, wake_r: int) -> int | None:
    """Until the engine's root has ended (its wait status), or it is to end (None)."""
    poll = select.poll()
    poll.register(launcher, select.POLLIN)
    poll.register(wake_r, select.POLLIN)
    while True:
        ready = [fd for fd, _ in poll.poll()]
        signals = os.read(wake_r, 512) if wake_r in ready else b""
        if (status := _reap(engine)) is not None:
            return status
        if launcher in ready or signal.SIGTERM in signals:
            return None


def _reap(engine: int) -> int | None:
    """Bury every ended child; the engine root's status if it was among them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == engine:
                found = status
    return found


def _end_all(engine: int, status: int | None, grace_s: float) -> int | None:
    """Root first, which lets it end its own workers; then whoever is left; then by force."""
    me = os.getpid()
    if status is None:
        _signal([engine], signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while (status := _reap(engine)) is None and time.monotonic() < deadline:
            time.sleep(_TICK_S)
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _LEFTOVER_GRACE_S
        while (left := descendants(me)) and (number == signal.SIGKILL or time.monotonic() < deadline):
            _signal(left, number)
            time.sleep(_TICK_S)
            found = _reap(engine)
            status = status if found is None else found
    return status


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _as_exit(status: int | None) -> dict[str, int | None]:
    if status is None:
        return {"code": None, "signal": None}
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "signal": None} if code >= 0 else {"code": None, "signal": -code}


if __name__ == "__main__":
    sys.exit(main())
