"""An accountant with a fake clock, fake meters and the real caps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from server.config import EnergySettings, TelemetrySettings
from server.energy import EnergyAccountant, ProcessTable, RequestEnergy
from server.fleet import Replica
from server.telemetry import LabelCaps
from server.wire import Hello
from tests.fakes.batches import batch, replica, worker
from tests.fakes.clock import FakeClock
from tests.fakes.meter import FakeMeter

__all__ = ["FakeProcesses", "House"]


class FakeProcesses(ProcessTable):
    """CPU time that the test sets, in µs."""

    def __init__(self) -> None:
        super().__init__()
        self.busy = 0
        self.trees: dict[int, int] = {}

    def busy_us(self) -> int:
        return self.busy

    def trees_us(self, roots: Iterable[int]) -> dict[int, int]:
        return {root: self.trees[root] for root in roots if root in self.trees}


class House:
    """One worker, one GPU unless told otherwise; time starts at 1000 s."""

    def __init__(
        self,
        *,
        meters: Sequence[FakeMeter] | None = None,
        replicas: Sequence[Replica] | None = None,
        clock: FakeClock | None = None,
        processes: ProcessTable | None = None,
        hold_s: float = 10.0,
        max_adapters: int = 50,
    ) -> None:
        self.clock = clock or FakeClock()
        self.meters = [FakeMeter(self.clock)] if meters is None else list(meters)
        self.replicas = [replica()] if replicas is None else list(replicas)
        self.caps = LabelCaps(TelemetrySettings(max_adapters=max_adapters, max_tenants=max_adapters), self.clock)
        self.accountant = EnergyAccountant(
            self.meters,
            replicas=lambda: tuple(self.replicas),
            clock=self.clock,
            settings=EnergySettings(hold_s=hold_s),
            caps=self.caps,
            processes=processes,
        )
        self.final: list[RequestEnergy] = []
        self._seq = 0

    @property
    def meter(self) -> FakeMeter:
        return self.meters[0]

    def tick(self) -> None:
        self.final += self.accountant.tick()

    def tell(self, by: Hello | None = None, at: float | None = None, **fields: Any) -> None:
        """A batch, as of now."""
        self._seq += 1
        self.accountant.take(batch(self._seq, at=at or self.clock.monotonic(), **fields), by or worker())

    def second(self, joules: float, baseline: float | None = None) -> None:
        """A second passes, in which the first meter counts that much."""
        self.clock.advance(1.0)
        self.meter.use(joules, baseline)
        self.tick()

    def accounts(self, *labels: str) -> dict[tuple[str, ...], int]:
        """µJ by the labels asked for, of (device, scope, engine, model, variant, precision, adapter, account)."""
        names = ("device", "scope", "engine", "model", "variant", "precision", "adapter", "account")
        sums: Counter[tuple[str, ...]] = Counter()
        for key, amount in self.accountant.snapshot().accounts.items():
            sums[tuple(key[names.index(label)] for label in labels)] += amount
        return dict(sums)

    def check_law(self) -> int:
        """The accounts of each device add up to it, the tenants to the active account; returns the sum of all."""
        now = self.accountant.snapshot()
        by_device: Counter[tuple[str, ...]] = Counter()
        active: Counter[str] = Counter()
        for (device, scope, *_, account), amount in now.accounts.items():
            assert amount >= 0
            by_device[device, scope] += amount
            if account == "active":
                active[scope] += amount
        assert {key: amount for key, amount in by_device.items() if amount} == {
            key: amount for key, amount in now.devices.items() if amount
        }
        by_tenant: Counter[str] = Counter()
        for (_, scope), amount in now.tenants.items():
            by_tenant[scope] += amount
        assert +by_tenant == +active
        return sum(now.devices.values())
