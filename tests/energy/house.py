"""An accountant with a fake clock, fake meters and the real caps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from server.accounts import Account, Posting, RequestEnergy
from server.config import EnergySettings, TelemetrySettings
from server.energy import EnergyAccountant, EnergyNow, ProcessTable
from server.fleet import Replica
from server.telemetry import LabelCaps
from server.wire import Hello
from tests.fakes.batches import batch, replica, worker
from tests.fakes.clock import FakeClock
from tests.fakes.meter import FakeMeter

__all__ = ["FakeProcesses", "House"]

_ACCOUNT = ("device", "scope", "engine", "model", "variant", "precision", "adapter", "account", "phase")


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
    """One worker, one GPU, the simplest method unless told otherwise; time starts at 1000 s."""

    def __init__(
        self,
        *,
        meters: Sequence[FakeMeter] | None = None,
        replicas: Sequence[Replica] | None = None,
        clock: FakeClock | None = None,
        processes: ProcessTable | None = None,
        hold_s: float = 10.0,
        max_adapters: int = 50,
        method: str = "token_share",
        **settings: Any,
    ) -> None:
        self.clock = clock or FakeClock()
        self.meters = [FakeMeter(self.clock)] if meters is None else list(meters)
        self.replicas = [replica()] if replicas is None else list(replicas)
        self.caps = LabelCaps(TelemetrySettings(max_adapters=max_adapters, max_tenants=max_adapters), self.clock)
        self.accountant = EnergyAccountant(
            self.meters,
            replicas=lambda: tuple(self.replicas),
            clock=self.clock,
            settings=EnergySettings(hold_s=hold_s, method=method, **settings),
            caps=self.caps,
            processes=processes,
        )
        self.left: list[RequestEnergy] = []
        """All that the book has given up so far."""
        self.posted: Counter[Posting] = Counter()
        self._seq = 0

    @property
    def meter(self) -> FakeMeter:
        return self.meters[0]

    def tick(self) -> None:
        self.left += self.accountant.tick()
        self.posted.update(self.accountant.take_postings())

    @property
    def final(self) -> list[RequestEnergy]:
        """Completed, and all of it known: what is observed."""
        return [one for one in self.left if one.completed and one.whole]

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
        """µJ by the labels asked for, of the names in `_ACCOUNT`."""
        sums: Counter[tuple[str, ...]] = Counter()
        for key, amount in self.accountant.snapshot().accounts.items():
            sums[tuple(key[_ACCOUNT.index(label)] for label in labels)] += amount
        return dict(sums)

    def check_law(self) -> int:
        """The accounts of each device add up to it, the tenants to the active account, the postings to all.

        Returns the sum of all devices.
        """
        now = self.accountant.snapshot()
        by_device: Counter[tuple[str, ...]] = Counter()
        active: Counter[str] = Counter()
        for (device, scope, *_, account, phase), amount in now.accounts.items():
            assert amount >= 0
            assert (phase == "none") == (account != "active")
            by_device[device, scope] += amount
            if account == "active":
                active[scope] += amount
        assert +by_device == {key: amount for key, amount in now.devices.items() if amount}
        assert +_sums(now.tenants, lambda key: key[1]) == +active
        self._check_idle(now)
        self._check_postings(now)
        return sum(now.devices.values())

    def _check_idle(self, now: EnergyNow) -> None:
        idle = _sums({key: amount for key, amount in now.accounts.items() if key[7] == "idle"}, lambda key: key[1])
        for scope, amount in _sums(now.tenants_idle, lambda key: key[1]).items():
            assert 0 <= amount <= idle[scope]

    def _check_postings(self, now: EnergyNow) -> None:
        """What was posted is what the accounts hold, whatever names the caps have hidden."""

        def uncapped(key: tuple[str, ...]) -> tuple[str, ...]:
            return (*key[:6], *key[7:])

        posted = Counter[tuple[str, ...]]()
        for posting, amount in self.posted.items():
            assert amount >= 0
            engine = (posting.engine, posting.model, posting.variant, posting.precision)
            posted[posting.device, posting.scope, *engine, posting.account.value, posting.phase.value] += amount
            assert (posting.tenant == "none") <= (posting.account is not Account.ACTIVE)
        assert +posted == +_sums(now.accounts, uncapped)


def _sums(amounts: Mapping[tuple[str, ...], int], by: Callable[[tuple[str, ...]], Any]) -> Counter[Any]:
    sums = Counter[Any]()
    for key, amount in amounts.items():
        sums[by(key)] += amount
    return sums
