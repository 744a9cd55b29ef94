"""A control plane's efficiency, without the control plane: a clock, figures that the test sets, real sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.config import TelemetrySettings
from server.config.efficiency import EfficiencySettings
from server.efficiency import Efficiency, EngineFacts, Over, Peaks, ReportSources, Sampler, SamplerSources
from server.efficiency.use import Use
from server.fleet import Replica
from server.models.architecture import Architecture, Attention, Block, Linear
from server.models.flops import FlopModel
from server.models.weight_bytes import WeightBytes
from server.models.work_model import WorkModel
from server.telemetry import LabelCaps, Traffic
from server.units import Bytes, Microjoules, Seconds
from server.wire import RequestRecord
from tests.fakes.batches import Stream, batch, record, replica, worker
from tests.fakes.clock import FakeClock

__all__ = ["INT4", "House", "served", "small_shape", "small_work"]

INT4 = ("demo-int4", "demo", "int4", "int4", "none")


@dataclass
class FakeEnergy:
    """The energy accounts, as the test posts them."""

    accounts: dict[tuple[str, ...], Microjoules] = field(default_factory=dict)
    closed_until: Seconds | None = None

    def post(
        self, joules: float, account: str = "active", configuration: Sequence[str] = INT4, *, phase: str = "none"
    ) -> None:
        key = ("cpu", "estimated", *configuration, account, phase)
        self.accounts[key] = Microjoules(self.accounts.get(key, 0) + round(joules * 1e6))


class FakeUses:
    """What engines use, as the test says; told at every look."""

    def __init__(self) -> None:
        self.uses: dict[str, Use] = {}

    def look(self, replicas: Sequence[Replica], at: Seconds) -> Mapping[str, Use]:
        return self.uses

    def close(self) -> None:
        """Nothing is held."""


class House:
    """`pass_time` ticks once a second, as the control plane does."""

    def __init__(self, *replicas: Replica, facts: Mapping[str, EngineFacts] | None = None, **settings: Any) -> None:
        self.clock = FakeClock()
        self.replicas = list(replicas) or [replica()]
        self.caps = LabelCaps(TelemetrySettings(max_adapters=2), self.clock)
        self.traffic = Traffic(self.caps)
        self.energy = FakeEnergy()
        self.uses = FakeUses()
        self.grams: dict[tuple[str, ...], float] | None = None
        self.gpu_names: dict[int, str] = {}
        found = EfficiencySettings(**settings)
        facts = facts or {}
        self.sampler = Sampler(
            found,
            SamplerSources(replicas=lambda: self.replicas, energy=lambda: self.energy, uses=self.uses),
            caps=self.caps,
            clock=self.clock,
        )
        sources = ReportSources(
            replicas=lambda: self.replicas, traffic=self.traffic.now, facts=facts, carbon=lambda: self.grams
        )
        self.efficiency = Efficiency(found, self.sampler, sources, Peaks(found.peaks, self.gpu_names.get))
        self._batches = 0
        self.sampler.tick()

    def serve(self, *records: RequestRecord, streams: Sequence[Stream] = ()) -> None:
        self._batches += 1
        one = batch(self._batches, records=records, streams=streams)
        assert self.traffic.take(one, worker())
        self.sampler.take(one.records)

    def pass_time(self, seconds: int = 1, *, metered: bool = True) -> None:
        for _ in range(seconds):
            self.clock.advance(1.0)
            if metered:
                self.energy.closed_until = self.clock.monotonic()
            self.sampler.tick()

    def values(self, by: str = "engine", over: Over = "window", row: int = 0) -> dict[str, Any]:
        """Of one row."""
        found: dict[str, Any] = self.efficiency.table(by.split(","), over)["rows"][row]["values"]
        return found

    def value(self, key: str, by: str = "engine", over: Over = "window") -> float | None:
        found: float | None = self.values(by, over)[key]["value"]
        return found

    def samples(self) -> dict[tuple[str, ...], float]:
        """By name and labels."""
        return {(name, *labels): value for name, labels, value in self.efficiency.samples() if value is not None}


def served(latency_s: float = 0.5, output_tokens: int | None = 5, **fields: Any) -> RequestRecord:
    """A streamed answer, its first token after a fifth of its time."""
    times = {"first_token_at": 1000.0 + latency_s / 5, "ended_at": 1000.0 + latency_s}
    return record(**{**times, "output_tokens": output_tokens, "token_chunks": output_tokens or 0, **fields})


def small_shape() -> Architecture:
    linear, head = Linear(d_in=5, d_out=10), Linear(d_in=5, d_out=2)
    attention = Attention(heads=1, key_dim=1, value_dim=1, cached_values=5)
    return Architecture(
        family="llama",
        hidden_size=5,
        vocabulary=2,
        blocks=(Block(linears=(linear,), attention=attention),),
        embedding_parameters=10,
        head=head,
        tied=False,
    )


def small_work() -> WorkModel:
    """100 FLOPs a fed token, 20 a sampled one, 4 a pair; 1000 bytes a step and 10 a token of context."""
    return WorkModel(
        flops=FlopModel.of(small_shape()),
        weights=WeightBytes(every_step=Bytes(1000), routed=Bytes(0), looked_up=Bytes(50)),
        kv_value_bytes=2,
        state_bytes_per_sequence=0,
    )
