"""Intel and AMD processors and their memory, by the kernel's powercap tree (RAPL).

`energy_uj` counts **microjoules** and goes back to 0 at `max_energy_range_uj`, every few minutes under load. A `dram`
zone lies below its `package` zone and is not part of its count. `core` and `uncore` are parts of their package, `psys`
covers packages and more, `intel-rapl-mmio` counts the packages a second time: any of them would count joules twice.
Source: Linux kernel, Documentation/power/powercap/powercap.rst and drivers/powercap/intel_rapl_common.c (AMD, too).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.clock import Clock
from server.energy.counter import JUMPED, EnergyCounter
from server.energy.meter import DeviceReading, Reading
from server.errors import MeterError
from server.units import Microjoules, Watts

__all__ = ["POWERCAP", "RaplMeter"]

POWERCAP: Final = Path("/sys/class/powercap")

_SCOPES: Final = ("package", "dram")
_MOST: Final = Watts(1000.0)
"""More than a package or its memory draws; it tells a wrap from a restart."""


@dataclass(frozen=True, slots=True)
class _Zone:
    device: str
    scope: str
    energy: Path
    wraps_at: Microjoules


class RaplMeter:
    """`package:0`, `dram:0`, …: shared by CPU time, as their counters do not tell processes apart."""

    kind: Final = "rapl"

    def __init__(self, *, clock: Clock, root: Path = POWERCAP) -> None:
        self._clock = clock
        self._root = root
        self._zones: list[_Zone] | None = None
        self._counters: dict[str, EnergyCounter] = {}

    def read(self) -> Reading:
        zones = self._zones if self._zones is not None else _zones(self._root)
        at = self._clock.monotonic()
        devices: list[DeviceReading] = []
        missing = dict.fromkeys(self._counters.keys() - {zone.device for zone in zones}, "its zone is gone")
        for zone in zones:
            try:
                count = Microjoules(int(zone.energy.read_bytes()))
            except PermissionError:
                missing[zone.device] = f"only root may read {zone.energy}"
            except (OSError, ValueError) as exc:
                missing[zone.device] = f"{zone.energy} cannot be read ({exc})"
            else:
                joules = self._counter(zone).advance(count, at)
                if joules is None:
                    missing[zone.device] = JUMPED
                    continue
                devices.append(DeviceReading(device=zone.device, scope=zone.scope, joules=joules, by_cpu_time=True))
        self._zones = zones if devices and not missing else None  # else they are looked for again
        if not devices:
            raise MeterError(self._why_none(missing))
        return Reading(at=at, devices=tuple(devices), missing=missing)

    def close(self) -> None:
        """Nothing is held."""
        self._zones = None

    def _counter(self, zone: _Zone) -> EnergyCounter:
        counter = self._counters.get(zone.device)
        if counter is None:
            counter = self._counters[zone.device] = EnergyCounter(most=_MOST, wraps_at=zone.wraps_at)
        return counter

    def _why_none(self, missing: dict[str, str]) -> str:
        if any("only root" in reason for reason in missing.values()):
            return (
                f"Only root may read RAPL's counters below {self._root}, as kernels since 5.10 have it. Allow it: "
                f"chmod a+r {self._root}/intel-rapl:*/energy_uj (docs/meters.md says what that opens), or choose the "
                "meter cpu_estimate."
            )
        if missing:
            reasons = "; ".join(f"{device}: {reason}" for device, reason in missing.items())
            return f"RAPL's counters cannot be read ({reasons}); choose the meter cpu_estimate."
        return (
            f"There is no RAPL package below {self._root}: this processor, virtual machine or container has none. "
            "Choose the meter cpu_estimate."
        )


def _zones(root: Path) -> list[_Zone]:
    """Packages and their memory, in order; zones whose description cannot be read are none."""
    try:
        folders = sorted(path for path in root.iterdir() if path.name.startswith("intel-rapl:"))
    except OSError:
        return []
    names = {folder.name: _text(folder / "name") for folder in folders}
    zones = []
    for folder in folders:
        package = names.get(":".join(folder.name.split(":")[:2])) or ""
        scope = (names[folder.name] or "").partition("-")[0]
        wraps_at = _text(folder / "max_energy_range_uj")
        if scope in _SCOPES and package.startswith("package-") and wraps_at is not None and wraps_at.isdecimal():
            device = f"{scope}:{package.removeprefix('package-')}"
            zones.append(_Zone(device, scope, folder / "energy_uj", Microjoules(int(wraps_at))))
    return zones


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
