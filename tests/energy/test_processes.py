"""CPU time of trees, read from a /proc made of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.energy import ProcessTable
from server.errors import MeterError


class Proc:
    """A /proc: processes come, use ticks, and go."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cpu(user=0)

    def cpu(self, **fields: int) -> None:
        names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice")
        numbers = " ".join(str(fields.get(name, 0)) for name in names)
        (self.root / "stat").write_text(f"cpu  {numbers}\ncpu0 {numbers}\nintr 1 2 3\n")

    def put(self, pid: int, parent: int, *, user: int = 0, waited: int = 0, name: str = "x", started: int = 1) -> None:
        (self.root / str(pid)).mkdir(exist_ok=True)
        fields = ["S", parent, *[0] * 9, user, 1, waited, 0, 20, 0, 1, 0, started, *[0] * 20]
        (self.root / str(pid) / "stat").write_text(f"{pid} ({name}) {' '.join(map(str, fields))}\n")

    def end(self, pid: int) -> None:
        (self.root / str(pid) / "stat").unlink()
        (self.root / str(pid)).rmdir()


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


@pytest.fixture
def table(proc: Proc) -> ProcessTable:
    return ProcessTable(proc.root, ticks_per_second=100)


def test_host_is_busy_for_all_but_idle_iowait_steal_and_guests_twice(proc: Proc, table: ProcessTable) -> None:
    proc.cpu(user=1, nice=2, system=4, idle=1000, iowait=2000, irq=8, softirq=16, steal=4000, guest=1, guest_nice=2)
    assert table.busy_us() == 31 * 10_000


@pytest.mark.parametrize("content", ["", "cpu", "cpu  a b c d e f g", "nonsense"])
def test_unreadable_host_statistics_are_a_meter_error_not_a_zero(proc: Proc, table: ProcessTable, content: str) -> None:
    (proc.root / "stat").write_text(content)
    with pytest.raises(MeterError, match="cannot be read"):
        table.busy_us()
    (proc.root / "stat").unlink()
    with pytest.raises(MeterError):
        table.busy_us()


def test_tree_is_its_root_with_all_descendants_and_the_time_they_waited_for(proc: Proc, table: ProcessTable) -> None:
    proc.put(10, 1, user=99, waited=100)  # each process has one tick of system time besides
    proc.put(11, 10, user=9)
    proc.put(12, 11, user=19)
    proc.put(20, 1, user=49)
    assert table.trees_us([10, 20]) == {10: 2_300_000, 20: 500_000}


def test_name_of_a_process_may_hold_anything(proc: Proc, table: ProcessTable) -> None:
    proc.put(10, 1, user=99, name=") S 7 (evil) R 1 1")
    assert table.trees_us([10]) == {10: 1_000_000}


def test_child_that_ends_stays_counted_once_its_parent_has_waited_for_it(proc: Proc, table: ProcessTable) -> None:
    proc.put(10, 1, user=9)
    proc.put(11, 10, user=99)
    assert table.trees_us([10]) == {10: 1_100_000}
    proc.end(11)
    proc.put(10, 1, user=9, waited=100)
    assert table.trees_us([10]) == {10: 1_100_000}


def test_new_child_is_found_within_a_few_readings(proc: Proc, table: ProcessTable) -> None:
    proc.put(10, 1, user=9)
    table.trees_us([10])
    proc.put(11, 10, user=99)
    assert [table.trees_us([10]) for _ in range(5)][-1] == {10: 1_100_000}


def test_root_that_is_gone_is_absent(proc: Proc, table: ProcessTable) -> None:
    proc.put(10, 1)
    assert table.trees_us([10, 77]).keys() == {10}
    proc.end(10)
    assert table.trees_us([10]) == {}
    assert table.trees_us([]) == {}


def test_pid_that_another_process_got_is_not_taken_for_the_child_that_had_it(proc: Proc, table: ProcessTable) -> None:
    proc.put(10, 1, user=9)
    proc.put(11, 10, user=9)
    table.trees_us([10])
    proc.put(11, 1, user=9999, started=2)
    assert table.trees_us([10]) == {10: 100_000}


def test_real_proc_knows_this_process() -> None:
    table = ProcessTable()
    (own,) = table.trees_us([1]).values()
    assert own >= 0
    assert table.busy_us() > 0
