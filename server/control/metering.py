"""What is made of records and joules: accounts, prices, carbon, budgets, efficiency, ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

from server.accounts import RequestEnergy
from server.carbon import CarbonIntensity, Footprint, open_sources, rates_of
from server.clock import Clock
from server.config import Config
from server.console import say
from server.control.budgets import Budgets
from server.control.held_devices import HeldDevices
from server.control.spent import LedgerSpending
from server.efficiency import (
    Efficiency,
    EngineFacts,
    GpuUse,
    HostUse,
    Peaks,
    ReportSources,
    Sampler,
    SamplerSources,
    UseSources,
    engine_facts,
)
from server.energy import EnergyAccountant, ProcessTable, discover
from server.energy.nvml import NvmlMeter
from server.fleet import Replica
from server.ledger.ledger import Ledger
from server.telemetry.labels import LabelCaps
from server.telemetry.sources import Sample
from server.telemetry.traffic import Traffic
from server.units import Seconds
from server.wire import Batch, Hello, News, Price, Prices

__all__ = ["Metering"]

_LOOK_AT_DEVICES_EVERY: Final = Seconds(10.0)
_OPENED_WITHIN: Final = Seconds(5.0)
"""The ledger, at the start."""
_LAST_WRITE: Final = Seconds(5.0)
"""For the ledger, at the end."""


class Acknowledger(Protocol):
    """Tells a worker that its batch is held: the bus."""

    def acknowledge(self, worker: Hello, seq: int) -> None: ...


class Metering:
    """Everything is told to it once, by `take` and by its own clock; everybody who shows figures reads its parts."""

    def __init__(
        self,
        config: Config,
        *,
        replicas: Callable[[], Sequence[Replica]],
        caps: LabelCaps,
        clock: Clock,
        publish: Callable[[News], None],
    ) -> None:
        self._config = config
        self._clock = clock
        self._publish = publish
        self._replicas = replicas
        processes = ProcessTable()
        meters = discover(config.energy, clock=clock, processes=processes)
        # A meter of its own: one is read by one thread at a time.
        nvml = NvmlMeter(clock=clock) if any(meter.kind == NvmlMeter.kind for meter in meters) else None
        self._held = HeldDevices(nvml.processes) if nvml is not None else None
        self.traffic = Traffic(caps)
        self.energy = EnergyAccountant(
            meters,
            replicas=self._metered,
            clock=clock,
            settings=config.energy,
            caps=caps,
            processes=processes,
        )
        self.carbon = CarbonIntensity(open_sources(config.carbon), config.carbon, clock=clock)
        self.footprint = Footprint(caps, carbon=config.carbon, cost=config.cost)
        self.budgets = Budgets(config.budgets, clock)
        self.ledger = Ledger(config.ledger, state_dir=config.state_dir, clock=clock) if config.ledger.enabled else None
        self.efficiency, self._sampler = self._make_efficiency(caps)
        self._prices: Prices | None = None

    def _make_efficiency(self, caps: LabelCaps) -> tuple[Efficiency, Sampler]:
        settings, gpus = self._config.efficiency, GpuUse()
        facts = _facts(self._config, self._replicas())
        sources = SamplerSources(
            replicas=self._metered,
            energy=self.energy.snapshot,
            uses=UseSources(host=HostUse(), gpus=gpus),
        )
        sampler = Sampler(settings, sources, caps=caps, clock=self._clock)
        shown = ReportSources(
            replicas=self._metered, traffic=self.traffic.now, facts=facts, carbon=self.footprint.by_configuration
        )
        return Efficiency(settings, sampler, shown, Peaks(settings.peaks, gpus.name)), sampler

    @property
    def samples(self) -> Sequence[Callable[[], Iterable[Sample]]]:
        """For the exposition."""
        own = (self.carbon.samples, self.footprint.samples, self.budgets.samples, self.efficiency.samples)
        return own if self.ledger is None else (*own, self.ledger.samples)

    def take(self, batch: Batch, worker: Hello) -> tuple[bool, bool]:
        """Learn from a batch: whether it is new, and whether it may be acknowledged at once."""
        held = self.ledger is None or self.ledger.take(batch, worker)
        new = self.traffic.take(batch, worker)
        if new:
            self.energy.take(batch, worker)
            self._sampler.take(batch.records)
            self.budgets.take_records(batch.records)
        return new, held

    def left(self, worker: Hello) -> None:
        """The worker's connection is gone."""
        self.traffic.left(worker)
        self.energy.left(worker)

    async def begin(self, bus: Acknowledger, version: str) -> None:
        """Before the first batch: open the ledger, and learn what tenants have spent before."""
        if self.ledger is not None:
            self.ledger.start(bus.acknowledge, version=version)
            await self.ledger.flush(_OPENED_WITHIN)
            await self.budgets.recall(LedgerSpending(self.ledger, self._clock))

    async def run(self) -> None:
        """Measure until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._meter(), name="meter")
            group.create_task(self.carbon.run(), name="carbon")
            group.create_task(self._sampler.run(), name="efficiency")
            if self._held is not None:
                group.create_task(self._look_at_devices(self._held), name="devices")

    async def flush(self, bound: Seconds) -> None:
        """Write what waits, so that workers can be told that it is held."""
        if self.ledger is not None:
            await self.ledger.flush(bound)

    async def end(self) -> None:
        """Book what is known, and close the ledger."""
        self.tick()
        self._book(self.energy.finish())
        if self.ledger is not None:
            await self.ledger.stop(_LAST_WRITE)
        self.energy.close()

    def tick(self) -> None:
        """Read the meters; book what has become known."""
        self._book(self.energy.tick())
        self._tell_workers()

    def _book(self, finals: Sequence[RequestEnergy]) -> None:
        self.traffic.take_energies(finals)
        postings = self.energy.take_postings()
        rates = rates_of(self.carbon.now(), self._config.carbon, self._config.cost)
        self.footprint.post(postings, rates, self._clock.monotonic())
        self.budgets.take_energy(postings, rates)
        if self.ledger is not None:
            self.ledger.post(finals, postings, rates)

    def _tell_workers(self) -> None:
        prices = Prices(
            engines={
                engine: Price(
                    prompt_token=price.prompt_token,
                    output_token=price.output_token,
                    method=price.method,
                    scope=price.scope,
                )
                for engine, price in self.energy.prices().items()
            }
        )
        if prices != self._prices:
            self._prices = prices
            self._publish(prices)
        news = self.budgets.news()
        if news is not None:
            self._publish(news)

    async def _meter(self) -> None:
        while True:
            await asyncio.sleep(self._config.energy.interval_s)
            self.tick()

    def _metered(self) -> Sequence[Replica]:
        replicas = self._replicas()
        return replicas if self._held is None else self._held.applied(replicas)

    async def _look_at_devices(self, held: HeldDevices) -> None:
        while True:
            for sentence in await asyncio.to_thread(held.look, self._replicas()):
                say(sentence)
            await asyncio.sleep(_LOOK_AT_DEVICES_EVERY)


def _facts(config: Config, replicas: Sequence[Replica]) -> dict[str, EngineFacts]:
    cards = {replica.name: replica.card for replica in replicas}
    facts = {}
    for engine in config.engines:
        local = engine.checkpoint is not None and not engine.checkpoint.startswith("hf:")
        facts[engine.name] = engine_facts(
            cards.get(engine.name),
            Path(engine.checkpoint) if local and engine.checkpoint is not None else None,
            dtype=engine.options.dtype,
            kv_cache_dtype=engine.options.kv_cache_dtype,
        )
    return facts
