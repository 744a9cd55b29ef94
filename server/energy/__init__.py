"""Energy: meters read joules, the accountant gives each joule one account.

meter.py           the contract of a meter
nvml.py            NVIDIA GPUs
cpu_estimate.py    hosts without a counter
processes.py       CPU time of process trees
devices.py         cuts a counter into windows
work.py            who worked when      (presence.py: what workers see running · foreign.py: what passed by the gateway)
attribution/       a window's joules → shares
books.py           shares → accounts
accountant.py      does it all, once a tick

To add a meter: one file with a class that keeps `EnergyMeter`'s contract, one line in `METERS`, one word in the
description of `energy.meters`.
"""

from collections.abc import Callable, Mapping
from typing import Final

from server.clock import Clock, SystemClock
from server.config import EnergySettings, MeterSettings
from server.energy.accountant import EnergyAccountant
from server.energy.books import EnergyNow, RequestEnergy
from server.energy.cpu_estimate import CpuEstimateMeter
from server.energy.meter import DeviceReading, EnergyMeter, Reading
from server.energy.nvml import NvmlMeter
from server.energy.processes import ProcessTable
from server.errors import ConfigError, MeterError

__all__ = [
    "METERS",
    "DeviceReading",
    "EnergyAccountant",
    "EnergyMeter",
    "EnergyNow",
    "ProcessTable",
    "Reading",
    "RequestEnergy",
    "discover",
]

MakeMeter = Callable[[MeterSettings, Clock, ProcessTable], EnergyMeter]

METERS: Final[Mapping[str, MakeMeter]] = {
    NvmlMeter.kind: lambda _settings, clock, _processes: NvmlMeter(clock=clock),
    CpuEstimateMeter.kind: lambda settings, clock, processes: CpuEstimateMeter(
        settings, clock=clock, processes=processes
    ),
}

_AUTO: Final = (NvmlMeter.kind, CpuEstimateMeter.kind)
"""The first that can be read is taken."""


def discover(
    settings: EnergySettings,
    *,
    clock: Clock | None = None,
    processes: ProcessTable | None = None,
    meters: Mapping[str, MakeMeter] = METERS,
) -> list[EnergyMeter]:
    """The meters that the configuration names, or, with `auto`, the first kind that can be read here (else none).

    A named meter is not tried: one that fails later is shown as down, and serving goes on. Raises `ConfigError` for an
    unknown kind.
    """
    clock, processes = clock or SystemClock(), processes or ProcessTable()
    if settings.meters == "auto":
        tried = (meters[kind](MeterSettings(kind=kind), clock, processes) for kind in _AUTO)
        return next(([meter] for meter in tried if _can_read(meter)), [])
    unknown = sorted({meter.kind for meter in settings.meters} - meters.keys())
    if unknown:
        raise ConfigError(
            f"energy.meters: there is no meter of the kind {', '.join(map(repr, unknown))}; there are "
            f"{', '.join(sorted(meters))}."
        )
    return [meters[meter.kind](meter, clock, processes) for meter in settings.meters]


def _can_read(meter: EnergyMeter) -> bool:
    try:
        meter.read()
    except MeterError:
        meter.close()
        return False
    return True
