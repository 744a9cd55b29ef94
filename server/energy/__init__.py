"""Energy: meters read joules, the accountant gives each joule one account.

meter.py           the contract of a meter   (counter.py: hardware counters wrap and restart, totals never fall)
nvml.py            NVIDIA GPUs
rapl.py            Intel and AMD packages and their memory
cpu_estimate.py    hosts without a counter
remote.py          another node's meters     (agent.py: what answers there)
recorded.py        a trace, played again
watch.py           meters over time, for people
processes.py       CPU time of process trees
mapping.py         which devices an engine uses, as configured and as the driver sees it
devices.py         cuts a counter into windows
work.py            who worked when      (presence.py: what workers see running · foreign.py: what passed by the gateway)
attribution/       a window's joules → shares
books.py           shares → accounts
accountant.py      does it all, once a tick

To add a meter: one file with a class that keeps `EnergyMeter`'s contract, one line in `METERS`, one word in the
description of `energy.meters`.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from server.clock import Clock, SystemClock
from server.config import EnergySettings, MeterSettings
from server.energy.accountant import EnergyAccountant
from server.energy.books import EnergyNow, RequestEnergy
from server.energy.cpu_estimate import CpuEstimateMeter
from server.energy.meter import DeviceReading, EnergyMeter, Reading
from server.energy.nvml import NvmlMeter
from server.energy.processes import ProcessTable
from server.energy.rapl import POWERCAP, RaplMeter
from server.energy.recorded import RecordedMeter
from server.energy.remote import RemoteMeter
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
    RaplMeter.kind: lambda settings, clock, _processes: RaplMeter(clock=clock, root=settings.path or POWERCAP),
    CpuEstimateMeter.kind: lambda settings, clock, processes: CpuEstimateMeter(
        settings, clock=clock, processes=processes
    ),
    "remote": lambda settings, clock, _processes: RemoteMeter(settings, clock=clock),
    RecordedMeter.kind: lambda settings, clock, _processes: RecordedMeter(settings.path or Path(), clock=clock),
}

_COUNTERS: Final = (NvmlMeter.kind, RaplMeter.kind)
"""With `auto`, all of these that can be read: GPUs and host are different joules."""


def discover(
    settings: EnergySettings,
    *,
    clock: Clock | None = None,
    processes: ProcessTable | None = None,
    meters: Mapping[str, MakeMeter] = METERS,
) -> list[EnergyMeter]:
    """The meters that the configuration names, or, with `auto`, this host's counters; without one the estimate.

    A named meter is not tried: one that fails later is shown as down, and serving goes on. Raises `ConfigError` for an
    unknown kind, and for one that would count joules twice.
    """
    clock, processes = clock or SystemClock(), processes or ProcessTable()
    if settings.meters == "auto":
        return _of_this_host(lambda kind: meters[kind](MeterSettings(kind=kind), clock, processes))
    unknown = sorted({meter.kind for meter in settings.meters} - meters.keys())
    if unknown:
        raise ConfigError(
            f"energy.meters: there is no meter of the kind {', '.join(map(repr, unknown))}; there are "
            f"{', '.join(sorted(meters))}."
        )
    if {RaplMeter.kind, CpuEstimateMeter.kind} <= {meter.kind for meter in settings.meters}:
        raise ConfigError("energy.meters: rapl and cpu_estimate would count the processor's joules twice; name one.")
    named = [meters[meter.kind](meter, clock, processes) for meter in settings.meters]
    twice = sorted(kind for kind, times in Counter(meter.kind for meter in named).items() if times > 1)
    if twice:
        raise ConfigError(
            f"energy.meters: {', '.join(twice)} is there twice, and its joules would count twice. Name it once; remote "
            "nodes need a `name` each."
        )
    return named


def _of_this_host(make: Callable[[str], EnergyMeter]) -> list[EnergyMeter]:
    found: list[EnergyMeter] = []
    scopes: set[str] = set()
    for kind in _COUNTERS:
        # Where a GPU's counter covers its whole module, the processor's would count joules a second time.
        reading = None if "module" in scopes else _try(meter := make(kind))
        if reading is not None:
            found.append(meter)
            scopes |= {device.scope for device in reading.devices}
    if not found and _try(estimate := make(CpuEstimateMeter.kind)) is not None:
        found.append(estimate)
    return found


def _try(meter: EnergyMeter) -> Reading | None:
    """Its first reading; None: it cannot be read, and holds nothing any more."""
    try:
        return meter.read()
    except MeterError:
        meter.close()
        return None
