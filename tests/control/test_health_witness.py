"""What workers' batches say of a replica, and when that is a hang; on a clock that stands."""

from __future__ import annotations

from typing import Any

import pytest

from server.control.witness import Witness, Witnesses
from server.wire import Batch, ReplicaSeen, RequestRecord, Source, TokenTimes
from tests.fakes.batches import gauges, record, worker
from tests.fakes.clock import FakeClock

NAME = "demo-int4"
NO_TOKENS = TokenTimes()
TOKEN = TokenTimes(
    sources=[Source(tenant="t", model="demo", variant="int4", precision="int4", adapter="none", engine=NAME)]
)


class Bus:
    """Witnesses of two replicas, told by workers."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.witnesses = Witnesses([NAME, "other"], self.clock)

    @property
    def witness(self) -> Witness:
        return self.witnesses[NAME]

    def tell(
        self,
        in_flight: int,
        boot: str = "boot-1",
        *,
        age: float = 0.0,
        records: tuple[RequestRecord, ...] = (),
        tokens: TokenTimes = NO_TOKENS,
        seen: dict[str, ReplicaSeen] | None = None,
    ) -> None:
        held = {NAME: in_flight} if in_flight else {}
        told = Batch(
            seq=1,
            at=self.clock.monotonic() - age,
            records=list(records),
            tokens=tokens,
            gauges=gauges(in_flight=held, seen=seen or {}),
        )
        self.witnesses.take(told, worker(boot))


def test_replica_stalls_while_requests_are_there_and_nothing_comes() -> None:
    bus = Bus()
    bus.clock.advance(100.0)
    assert bus.witness.stalled_for == pytest.approx(0.0)
    bus.tell(2)
    bus.clock.advance(10.0)
    bus.tell(1, "boot-2")
    bus.clock.advance(10.0)
    assert bus.witness.stalled_for == pytest.approx(20.0)
    assert bus.witness.in_flight == 3
    assert bus.witnesses["other"].stalled_for == pytest.approx(0.0)


@pytest.mark.parametrize("progress", [{"tokens": TOKEN}, {"records": (record(),)}], ids=["a token", "an answer's end"])
def test_progress_at_any_worker_begins_the_count_anew(progress: dict[str, Any]) -> None:
    bus = Bus()
    bus.tell(1)
    bus.clock.advance(50.0)
    bus.tell(1, "boot-2", **progress)
    assert bus.witness.stalled_for == pytest.approx(0.0)


def test_request_that_was_given_up_is_no_progress_and_waiting_adds_up_over_such() -> None:
    bus = Bus()
    for _ in range(4):
        bus.tell(1)
        bus.clock.advance(20.0)
        bus.tell(0, records=(record(upstream_done_at=None),))
        bus.clock.advance(20.0)
    assert bus.witness.stalled_for == pytest.approx(80.0)


def test_requests_of_a_worker_that_went_are_gone() -> None:
    bus = Bus()
    bus.tell(1)
    bus.witnesses.left(worker())
    bus.clock.advance(50.0)
    assert bus.witness.in_flight == 0
    assert bus.witness.stalled_for == pytest.approx(0.0)


def test_sightings_are_passed_on_at_once_and_old_batches_are_not() -> None:
    bus = Bus()
    heard: list[ReplicaSeen] = []
    bus.witness.on_seen = heard.append
    bus.tell(1, seen={NAME: ReplicaSeen(lost=1), "unknown": ReplicaSeen()})
    assert heard == [ReplicaSeen(lost=1)]
    bus.tell(1, age=6.0, seen={NAME: ReplicaSeen(lost=1)})
    assert len(heard) == 1
