"""For each kind of meter, one that reads a device which the test makes work, loses and brings back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.config import MeterSettings
from server.energy import EnergyMeter, ProcessTable
from server.energy.cpu_estimate import CpuEstimateMeter
from server.energy.nvml import NvmlMeter
from server.energy.rapl import RaplMeter
from server.energy.recorded import RecordedMeter
from server.energy.remote import RemoteMeter
from server.units import Seconds
from tests.energy.test_processes import Proc
from tests.fakes.clock import FakeClock
from tests.fakes.meter import FakeMeter
from tests.fakes.meter_node import MeterNode
from tests.fakes.nvml_library import NvmlLibrary
from tests.fakes.powercap import INTEL_LAPTOP, Powercap

__all__ = ["RIGS", "Place", "Rig"]

JOULES: Final = 8.0
"""What a device uses each time it works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a rig is built."""

    folder: Path
    clock: FakeClock
    nvml: NvmlLibrary


@dataclass(slots=True, kw_only=True)
class Rig:
    """A meter and its one device."""

    meter: EnergyMeter
    work: Callable[[], None]
    """The device uses `JOULES`, and the meter can know."""
    lose: Callable[[], None]
    find: Callable[[], None] | None
    """None: what is lost stays lost."""


@contextmanager
def _nvml(place: Place) -> Iterator[Rig]:
    used_mj = [5000]

    def work() -> None:
        used_mj[0] += round(JOULES * 1000)
        place.nvml.gpu(0, energy_mj=used_mj[0])

    yield Rig(
        meter=NvmlMeter(clock=place.clock, load=place.nvml.load),
        work=work,
        lose=lambda: place.nvml.gpu(0, energy_mj_error=15),
        find=lambda: place.nvml.gpu(0, energy_mj_error=None),
    )


@contextmanager
def _rapl(place: Place) -> Iterator[Rig]:
    tree, count = Powercap(place.folder / "powercap", INTEL_LAPTOP), [1_000_000]

    def work() -> None:
        count[0] += round(JOULES * 1_000_000)
        tree.set("intel-rapl:0", count[0])

    yield Rig(
        meter=RaplMeter(clock=place.clock, root=tree.root),
        work=work,
        lose=lambda: tree.take_counter("intel-rapl:0"),
        find=lambda: tree.set("intel-rapl:0", count[0]),
    )


@contextmanager
def _cpu_estimate(place: Place) -> Iterator[Rig]:
    proc, ticks = Proc(place.folder), [0]

    def work() -> None:
        ticks[0] += 100  # one core for one second
        proc.cpu(user=ticks[0])

    settings = MeterSettings(kind="cpu_estimate", idle_watts=0.0, watts_per_core=JOULES)
    yield Rig(
        meter=CpuEstimateMeter(settings, clock=place.clock, processes=ProcessTable(proc.root, ticks_per_second=100)),
        work=work,
        lose=(proc.root / "stat").unlink,
        find=lambda: proc.cpu(user=ticks[0]),
    )


@contextmanager
def _remote(place: Place) -> Iterator[Rig]:
    device = FakeMeter(place.clock)
    node = MeterNode([device], clock=place.clock)
    settings = MeterSettings(kind="remote", url=node.url, name="node-b")
    meter = RemoteMeter(settings, clock=place.clock, every=Seconds(0.01))

    def settle() -> None:
        node.wait_answers(3)  # the first may have been on its way, the third may not have arrived: the second counts

    def work() -> None:
        device.use(JOULES)
        settle()

    def lose() -> None:
        device.fail()
        settle()
        place.clock.advance(6.0)

    def find() -> None:
        device.recover()
        settle()

    try:
        _first_answer(meter, node)
        yield Rig(meter=meter, work=work, lose=lose, find=find)
    finally:
        meter.close()
        node.stop()


def _first_answer(meter: EnergyMeter, node: MeterNode) -> None:
    try:
        meter.read()
    except Exception:  # noqa: BLE001  # no answer yet: the contract's test judges the next one
        node.wait_answers(2)


@contextmanager
def _replay(place: Place) -> Iterator[Rig]:
    path = place.folder / "meter.jsonl"
    lines = [json.dumps({"t_s": 50.0 + second, "joules_total": 100 + JOULES * second}) for second in range(60)]
    path.write_text("\n".join(lines))
    meter = RecordedMeter(path, clock=place.clock)

    def lose() -> None:
        place.clock.advance(60.0)
        meter.read()  # the last that it has to say

    yield Rig(meter=meter, work=lambda: place.clock.advance(1.0), lose=lose, find=None)


RIGS: Final[Mapping[str, Callable[[Place], AbstractContextManager[Rig]]]] = {
    "nvml": _nvml,
    "rapl": _rapl,
    "cpu_estimate": _cpu_estimate,
    "remote": _remote,
    "replay": _replay,
}
