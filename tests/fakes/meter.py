"""A meter whose devices use what the test says."""

from __future__ import annotations

from server.clock import Clock
from server.energy import DeviceReading, Reading
from server.errors import MeterError
from server.units import Joules

__all__ = ["FakeMeter"]


class FakeMeter:
    """One device. `use` adds joules; `fail` until `recover`; `restart` sets the counter back, as no real meter may."""

    kind = "fake"

    def __init__(
        self, clock: Clock, device: str = "gpu:0", scope: str = "gpu", *, by_cpu_time: bool = False, kind: str = "fake"
    ) -> None:
        self.kind = kind
        self._clock = clock
        self._device = device
        self._scope = scope
        self._by_cpu_time = by_cpu_time
        self._joules = 0.0
        self._baseline: float | None = None
        self._fails = False

    def use(self, joules: float, baseline: float | None = None) -> None:
        """`baseline` is the part of `joules` that is idle power."""
        self._joules += joules
        if baseline is not None:
            self._baseline = (self._baseline or 0.0) + baseline

    def fail(self) -> None:
        self._fails = True

    def recover(self) -> None:
        self._fails = False

    def restart(self) -> None:
        self._joules = 0.0

    def say(self, joules: float) -> None:
        """Let the counter stand at anything, nonsense included."""
        self._joules = joules

    def read(self) -> Reading:
        if self._fails:
            raise MeterError("The fake device is gone; call recover.")
        return Reading(
            at=self._clock.monotonic(),
            devices=(
                DeviceReading(
                    device=self._device,
                    scope=self._scope,
                    joules=Joules(self._joules),
                    baseline_joules=None if self._baseline is None else Joules(self._baseline),
                    by_cpu_time=self._by_cpu_time,
                ),
            ),
        )

    def close(self) -> None:
        """Nothing is held."""
