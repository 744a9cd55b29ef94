"""What the accountant hears and reads while a trace is replayed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Final

import msgspec
import numpy as np

from server.energy.books import NameCap
from server.energy.meter import DeviceReading, Reading
from server.energy.replay.meter_file import DeviceTrace
from server.energy.replay.requests_file import Traced
from server.fleet import EngineState, Replica
from server.units import Joules, Seconds
from server.wire import (
    NO_ADAPTER,
    PROTOCOL_VERSION,
    Batch,
    Hello,
    Source,
    TokenTimes,
    WorkerGauges,
)

__all__ = ["WORKER", "AsTheyCame", "TraceClock", "TraceMeter", "batch_of", "engine_at"]

WORKER: Final = Hello(version=PROTOCOL_VERSION, slot=0, pid=0, boot="replay")

_KIND: Final = "trace"
_QUIET: Final = WorkerGauges(in_flight={}, queued=0, loop_lags_s=[], records_dropped=0, rejections={}, retries={})


class TraceClock:
    """Stands where the trace is."""

    def __init__(self) -> None:
        self.at = Seconds(0.0)

    def monotonic(self) -> Seconds:
        return self.at

    def wall(self) -> Seconds:
        return self.at


class TraceMeter:
    """Says of each device what it had counted at the border of a window, at that moment only."""

    kind: Final = _KIND

    def __init__(self, devices: Sequence[DeviceTrace], clock: TraceClock) -> None:
        self._devices = [
            (device, dict(zip(device.times.tolist(), device.joules.tolist(), strict=True))) for device in devices
        ]
        self._clock = clock

    def moments(self) -> list[float]:
        """All borders, ascending."""
        return sorted({at for _, joules in self._devices for at in joules})

    def read(self) -> Reading:
        at = self._clock.at
        return Reading(
            at=at,
            devices=tuple(
                DeviceReading(device=f"{_KIND}:{place}", scope=device.name, joules=Joules(joules[at]))
                for place, (device, joules) in enumerate(self._devices)
                if at in joules
            ),
        )

    def close(self) -> None:
        """Nothing is held."""


class AsTheyCame:
    """Caps that hide no name."""

    def __init__(self) -> None:
        self.lock = nullcontext()
        self.adapters: NameCap = _Uncapped()
        self.tenants: NameCap = _Uncapped()


class _Uncapped:
    def __call__(self, name: str) -> str:
        return name

    def on_evict(self, fold: object) -> None:
        """No name ever goes."""


def engine_at(name: str, devices: int) -> Replica:
    """An engine that uses all devices, and serves all the time."""
    return Replica(
        name=name,
        model=NO_ADAPTER,
        variant=NO_ADAPTER,
        precision=NO_ADAPTER,
        task="generate",
        kind="trace",
        launcher="trace",
        state=EngineState.READY,
        since=Seconds(0.0),
        url=None,
        api_key=None,
        upstream_model="",
        max_model_len=None,
        adapters=frozenset(),
        restarts=0,
        pid=None,
        device=f"{_KIND}:{','.join(map(str, range(devices)))}",
        cores=frozenset(),
        card=None,
        engine_version=None,
        problem=None,
        log_path=None,
        memory_bytes=None,
        gauges=None,
    )


def batch_of(seq: int, requests: Sequence[Traced]) -> Batch:
    """Requests and all their token times at once, as if they had ended already; each must have a record."""
    records = [request.record for request in requests if request.record is not None]
    streams = [
        (request.record, request.token_times)
        for request in requests
        if request.record is not None and len(request.token_times)
    ]
    whose = [
        Source(record.tenant, NO_ADAPTER, NO_ADAPTER, NO_ADAPTER, record.adapter, record.engine or NO_ADAPTER)
        for record, _ in streams
    ]
    sources = {source: place for place, source in enumerate(dict.fromkeys(whose))}
    tokens = TokenTimes(
        sources=list(sources),
        ids=[record.id for record, _ in streams],
        source_of=np.array([sources[source] for source in whose], "<u4").tobytes(),
        counts=np.array([len(times) for _, times in streams], "<u4").tobytes(),
        sent_at=np.array([record.sent_at for record, _ in streams], "<f8").tobytes(),
        previous_at=np.full(len(streams), np.nan).astype("<f8").tobytes(),
        times=np.concatenate([np.zeros(0), *(times for _, times in streams)]).astype("<f8").tobytes(),
    )
    return Batch(seq=seq, at=0.0, records=records, tokens=tokens, gauges=msgspec.structs.replace(_QUIET))
