"""All children: kept running, replaced without a gap, ended in order."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Final

from server.console import EXIT_NOTHING_TO_SERVE, say
from server.launcher.child import Child, how_it_ended
from server.launcher.descendants import reap
from server.launcher.events import Events
from server.launcher.plan import Plan
from server.launcher.sockets import Sockets

__all__ = ["Family", "NotReplacedError", "Over"]

_CONTROL: Final = "control plane"
_FOR_EVER_S: Final = 3600.0
_LATE_S: Final = 5.0
"""A worker hands over its last records after its drain."""
_CONTROL_STOP_S: Final = 40.0
_HAND_OVER_S: Final = 30.0
"""Beyond the drain of engines that go: for their end."""
_READY_S: Final = 60.0
_KILLED_S: Final = 10.0


class Over(Exception):  # noqa: N818  # no error: the end
    """The gateway is to end with this exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class NotReplacedError(Exception):
    """A new child did not come up; the message says what serves now."""


class Family:
    """The control plane, a worker for each slot, and those on their way out or in."""

    def __init__(self, plan: Plan, sockets: Sockets, events: Events) -> None:
        self.plan = plan
        self._sockets = sockets
        self._events = events
        self._control = self._make_control(plan)
        self._workers = [self._make_worker(plan, slot) for slot in range(plan.workers)]
        self._leaving: list[Child] = []
        self._newcomer: Child | None = None

    def start(self) -> None:
        """Start everybody."""
        for child in (self._control, *self._workers):
            child.start()

    def live_until(self, condition: Callable[[], bool], bound_s: float = float("inf")) -> bool:
        """Keep all children running until it is true (or False: the time is over).

        Raises `Over` once somebody asks to stop, or when the control plane says that nothing can be served.
        """
        deadline = time.monotonic() + bound_s
        while not condition():
            if time.monotonic() >= deadline:
                return False
            self._events.wait(min(self._next_restart(), deadline, time.monotonic() + _FOR_EVER_S) - time.monotonic())
            if self._events.stops:
                raise Over(0)
            self._look_after()
        return True

    def run_aside(self, argv: tuple[str, ...]) -> None:
        """Start a command that ends by itself."""
        try:
            subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
        except OSError as exc:
            say(f"{argv[0]} could not be started: {exc}")

    # --- another plan -------------------------------------------------------------------------------------------------

    def replace(self, plan: Plan, tell: Callable[[str], None]) -> None:
        """Go over to another plan: the control plane first, then each worker once its successor serves.

        Raises `OSError` if it has more workers than there can be sockets, then nothing has changed, and
        `NotReplacedError`.
        """
        self._sockets.grow(plan.workers)
        self._replace_control(plan, tell)
        tell("the control plane has the new configuration")
        for slot in range(plan.workers):
            self._replace_worker(plan, slot)
            tell(f"worker {slot} of {plan.workers} serves with it")
        self._retire(self._workers[plan.workers :])
        del self._workers[plan.workers :]
        bound_s = max(plan.drain_timeout_s, self.plan.drain_timeout_s) + _LATE_S
        self.plan = plan
        if not self.live_until(lambda: not self._leaving, bound_s):
            tell("requests did not end in time; cutting them")
            self._kill_leaving()
        tell("the workers of the old configuration have ended")

    def _replace_control(self, plan: Plan, tell: Callable[[str], None]) -> None:
        old = self._control
        self._control = self._make_control(plan)
        self._retire([old], signal.SIGHUP)  # it lets go of the engines that stay
        if not self.live_until(lambda: not old.running, self.plan.drain_timeout_s + _HAND_OVER_S):
            tell("the old control plane did not end in time; it is killed")
        self._kill_leaving()
        if not self._comes_up(self._control):
            self._control = self._make_control(self.plan)
            self._control.start()
            raise NotReplacedError("the new control plane did not come up, see its messages; the old settings are back")

    def _replace_worker(self, plan: Plan, slot: int) -> None:
        worker = self._make_worker(plan, slot)
        if not self._comes_up(worker):
            raise NotReplacedError(
                f"a new worker {slot} did not come up, see its messages; the engines are as the new file says, "
                "workers from this one on keep their old settings"
            )
        self._retire(self._workers[slot : slot + 1])
        self._workers[slot : slot + 1] = [worker]

    def _comes_up(self, child: Child) -> bool:
        """Start it and wait until it serves; one that does not is ended."""
        self._newcomer = child
        child.start()
        self.live_until(lambda: child.ready or not child.running, _READY_S)
        self._newcomer = None
        if child.ready:
            return True
        self._retire([child], signal.SIGKILL)
        self.live_until(lambda: not child.running, _KILLED_S)
        return False

    def _retire(self, children: list[Child], number: int = signal.SIGTERM) -> None:
        """Tell them to end; nobody starts them again."""
        for child in children:
            child.restart_at = None
            child.send(number)
        self._leaving += [child for child in children if child.running]

    def _kill_leaving(self) -> None:
        for child in self._leaving:
            child.send(signal.SIGKILL)
        self.live_until(lambda: not self._leaving, _KILLED_S)

    # --- the end ------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Workers first (they finish what runs and hand over their records), then the control plane with its engines.

        Each further request to stop ends the wait that is going on.
        """
        controls = [child for child in self._all() if child.name == _CONTROL]
        workers = [child for child in self._all() if child.name != _CONTROL]
        for worker in workers:
            worker.send(signal.SIGTERM)
        if not self._wait_for(workers, self.plan.drain_timeout_s + _LATE_S):
            say("requests did not end in time; cutting them")
        for worker in workers:
            worker.send(signal.SIGKILL)
        for control in controls:
            control.send(signal.SIGTERM)
        self._wait_for(controls, _CONTROL_STOP_S)

    def _wait_for(self, children: list[Child], bound_s: float) -> bool:
        """True when all have ended; False when the time is over, or on a signal, which means: at once."""
        deadline, hurry = time.monotonic() + bound_s, self._events.stops
        while any(child.running for child in children):
            if time.monotonic() >= deadline or self._events.stops > hurry:
                return False
            self._events.wait(deadline - time.monotonic())
            list(self._ended())
        return True

    # --- inside -------------------------------------------------------------------------------------------------------

    def _make_control(self, plan: Plan) -> Child:
        control, bus = self._sockets.control.fileno(), self._sockets.bus.fileno()
        told = ("--listen-fd", str(control), "--bus-fd", str(bus), "--launcher-pid", str(os.getpid()))
        return Child(
            name=_CONTROL,
            argv=(*plan.control_argv, *told),
            fds=(control, bus),
            cores=plan.cores,
            events=self._events,
        )

    def _make_worker(self, plan: Plan, slot: int) -> Child:
        listeners = self._sockets.of_slot(slot, plan.workers)
        told = [text for fd in listeners for text in ("--listen-fd", str(fd))]
        return Child(
            name=f"worker {slot}",
            argv=(*plan.gateway_argv, "--slot", str(slot), *told),
            fds=tuple(listeners),
            cores=plan.cores,
            events=self._events,
        )

    def _all(self) -> list[Child]:
        newcomer = [] if self._newcomer is None else [self._newcomer]
        return [self._control, *self._workers, *self._leaving, *newcomer]

    def _next_restart(self) -> float:
        return min(
            (child.restart_at for child in (self._control, *self._workers) if child.restart_at is not None),
            default=float("inf"),
        )

    def _look_after(self) -> None:
        """Bury who ended, start again who is due."""
        for child, status in self._ended():
            if child in self._leaving:
                self._leaving.remove(child)
            elif child is self._newcomer:
                say(f"the new {child.name} ended ({how_it_ended(status)})")
            elif child is self._control and status == EXIT_NOTHING_TO_SERVE:
                raise Over(1)
            else:
                say(f"{child.name} ended ({how_it_ended(status)}); starting another")
                child.schedule_restart()
        for child in (self._control, *self._workers):
            if child.restart_at is not None and child.restart_at <= time.monotonic() and child is not self._newcomer:
                child.start()

    def _ended(self) -> Iterator[tuple[Child, int]]:
        """Reap everything that ended, adopted strangers too; yields our own children with their exit status."""
        by_pid = {child.process.pid: child for child in self._all() if child.process is not None}
        for pid, status in reap():
            child = by_pid.get(pid)
            if child is not None:
                child.ended(status)
                yield child, status
