"""How much of its device an engine uses: recorded /proc and cgroup trees, and an NVML that says what the test says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from server.efficiency import GpuUse, HostUse, UseSources
from server.efficiency.host import memory_limit
from server.efficiency.use import Use
from server.units import Seconds
from tests.fakes.batches import replica

MEMINFO = "MemTotal:       16384000 kB\nMemFree:         1000000 kB\n"
MACHINE = 16_384_000 * 1024


def tree(root: Path, files: Mapping[str, str]) -> tuple[Path, Path]:
    """`proc/…` and `cgroup/…` files under `root`."""
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root / "proc", root / "cgroup"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, MACHINE),
        ({"proc/7/cgroup": "0::/\n"}, MACHINE),
        # version 2: the limits of all above hold, too; `max` is none
        (
            {
                "proc/7/cgroup": "0::/user.slice/engine.scope\n",
                "cgroup/user.slice/memory.max": "4000000000\n",
                "cgroup/user.slice/engine.scope/memory.max": "max\n",
            },
            4_000_000_000,
        ),
        # a container with a namespace of its own: its limit stands at the root
        ({"proc/7/cgroup": "0::/\n", "cgroup/memory.max": "2147483648\n"}, 2_147_483_648),
        # version 1, and a path that belongs to another namespace
        (
            {
                "proc/7/cgroup": "9:name=systemd:/\n4:cpu,memory:/docker/0123\n0::/\n",
                "cgroup/memory/memory.limit_in_bytes": "3000000000\n",
            },
            3_000_000_000,
        ),
        # version 1 writes a huge number where there is no limit
        (
            {
                "proc/7/cgroup": "4:memory:/\n",
                "cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            MACHINE,
        ),
        # outside of this namespace: `sibling` is another one than the one of that name inside
        ({"proc/7/cgroup": "0::/../../sibling\n", "cgroup/sibling/memory.max": "5\n"}, MACHINE),
        ({"proc/7/cgroup": "nonsense\n0:\n", "proc/meminfo": "MemTotal: many kB\n"}, None),
        ({"proc/meminfo": ""}, None),
    ],
)
def test_memory_limit_is_the_least_of_cgroups_and_machine(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    proc, cgroups = tree(tmp_path, files)
    assert memory_limit(7, proc=proc, cgroups=cgroups) == expected


def test_limit_of_nothing_readable_is_unknown(tmp_path: Path) -> None:
    assert memory_limit(7, proc=tmp_path / "none", cgroups=tmp_path / "none") is None


class Host:
    """CPU times as the test says."""

    def __init__(self, root: Path, *, cores: int = 8) -> None:
        proc, cgroups = tree(root, {})
        self.times: dict[int, int] = {}
        self.use = HostUse(proc=proc, cgroups=cgroups, cpu_us=lambda _roots: self.times, cores=cores)

    def look(self, at: float, **fields: Any) -> Use:
        return self.use.look([replica(device="cpu", **fields)], Seconds(at))["demo-int4"]


def test_cpu_time_over_the_cores_that_it_is_bound_to(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.times = {100: 5_000_000}
    first = host.look(0.0, cores=frozenset({2, 3}))
    assert (first.compute_s, first.compute_busy_s) == (None, None)
    host.times = {100: 12_500_000}
    second = host.look(5.0, cores=frozenset({2, 3}))
    assert (second.compute_s, second.compute_busy_s) == (10.0, 7.5)


def test_engine_that_is_bound_to_no_cores_has_all(tmp_path: Path) -> None:
    host = Host(tmp_path, cores=8)
    host.times = {100: 0}
    host.look(0.0)
    assert host.look(5.0).compute_s == 40.0


def test_cpu_time_is_read_every_five_seconds_only(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.times = {100: 0}
    told = [host.look(float(second)).compute_s for second in range(11)]
    assert [second for second, had in enumerate(told) if had is not None] == [5, 10]


def test_another_process_or_a_time_that_fell_begins_anew(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.times = {100: 50_000_000}
    host.look(0.0)
    host.times = {101: 60_000_000}
    assert host.look(5.0, pid=101).compute_s is None
    host.times = {101: 1_000_000}
    assert host.look(10.0, pid=101).compute_s is None
    host.times = {101: 2_000_000}
    assert host.look(15.0, pid=101).compute_busy_s == 1.0


def test_process_that_is_gone_is_not_told_about(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.look(0.0)
    assert host.look(5.0).compute_s is None


def test_memory_stands_over_what_the_engine_may_hold(tmp_path: Path) -> None:
    use = Host(tmp_path).look(0.0, memory_bytes=2_000_000_000)
    assert (use.memory_held_bytes, use.memory_allowed_bytes) == (2_000_000_000, MACHINE)


def test_real_process_is_read_on_this_machine() -> None:
    host = HostUse()
    engine = replica(device="cpu", pid=os.getpid())
    host.look([engine], Seconds(0.0))
    use = host.look([engine], Seconds(5.0))["demo-int4"]
    assert use.memory_allowed_bytes is not None
    assert use.compute_s is not None
    assert use.compute_busy_s is not None


# --- GPUs -------------------------------------------------------------------------------------------------------------


class FakeNvml:
    """Two GPUs of 80 GB. `broken` names the functions that fail."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.utilization = {0: 50, 1: 100}
        self.held = {0: 40 * 10**9, 1: 20 * 10**9}
        self.opened = 0

    def _try(self, name: str) -> None:
        if name in self.broken:
            raise self.NVMLError(name)

    def nvmlInit(self) -> None:  # noqa: N802  # NVML's names
        self._try("init")
        self.opened += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.opened -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        self._try("handle")
        return index

    def nvmlDeviceGetName(self, handle: int) -> bytes:  # noqa: N802
        return b"NVIDIA H100 80GB HBM3"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        self._try("memory")
        return SimpleNamespace(used=self.held[handle], total=80 * 10**9)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        self._try("utilization")
        return SimpleNamespace(gpu=self.utilization[handle])


def test_utilization_and_memory_of_all_its_gpus() -> None:
    gpus = GpuUse(load=FakeNvml)
    engine = replica(device="gpu:0,1", memory_bytes=30 * 10**9)
    assert gpus.look([engine], Seconds(0.0))["demo-int4"].compute_s is None
    use = gpus.look([engine], Seconds(1.0))["demo-int4"]
    assert (use.memory_held_bytes, use.memory_allowed_bytes) == (30 * 10**9, 160 * 10**9)
    assert (use.compute_s, use.compute_busy_s) == (2.0, 1.5)
    assert gpus.name(0) == "NVIDIA H100 80GB HBM3"


def test_without_process_lists_all_memory_is_the_engines_if_it_is_alone() -> None:
    gpus = GpuUse(load=FakeNvml)
    (alone,) = gpus.look([replica(device="gpu:0")], Seconds(0.0)).values()
    assert alone.memory_held_bytes == 40 * 10**9
    both = gpus.look([replica(name="a", device="gpu:0"), replica(name="b", device="gpu:0")], Seconds(1.0))
    assert [use.memory_held_bytes for use in both.values()] == [None, None]


def test_gpu_that_tells_no_utilization_still_tells_its_memory() -> None:
    nvml = FakeNvml()
    nvml.broken = {"utilization"}  # MIG
    gpus = GpuUse(load=lambda: nvml)
    gpus.look([replica()], Seconds(0.0))
    use = gpus.look([replica()], Seconds(1.0))["demo-int4"]
    assert (use.compute_s, use.memory_allowed_bytes) == (None, 80 * 10**9)


def test_nvml_that_fails_is_let_go_and_tried_again_a_minute_later() -> None:
    nvml = FakeNvml()
    gpus = GpuUse(load=lambda: nvml)
    engine = replica(memory_bytes=7)
    gpus.look([engine], Seconds(0.0))
    nvml.broken = {"memory"}
    assert gpus.look([engine], Seconds(1.0))["demo-int4"] == Use(memory_held_bytes=7)
    assert nvml.opened == 0
    nvml.broken = set()
    assert gpus.look([engine], Seconds(30.0))["demo-int4"].memory_allowed_bytes is None
    assert gpus.look([engine], Seconds(62.0))["demo-int4"].memory_allowed_bytes == 80 * 10**9
    gpus.close()
    assert nvml.opened == 0


@pytest.mark.parametrize("error", [ImportError("no module"), OSError("no library")])
def test_machine_without_nvml_knows_nothing_of_gpus(error: Exception) -> None:
    def load() -> Any:
        raise error

    gpus = GpuUse(load=load)
    assert gpus.look([replica()], Seconds(0.0))["demo-int4"] == Use()
    gpus.close()


def test_each_engine_is_looked_at_where_it_runs(tmp_path: Path) -> None:
    host = Host(tmp_path)
    sources = UseSources(host=host.use, gpus=GpuUse(load=FakeNvml))
    engines = [
        replica(name="on-cpu", device="cpu", memory_bytes=1),
        replica(name="on-gpu", device="gpu:1", memory_bytes=2),
        replica(name="elsewhere", device="remote", pid=None),
        replica(name="not-started", device="cpu", pid=None),
    ]
    uses = sources.look(engines, Seconds(0.0))
    assert {name: use.memory_allowed_bytes for name, use in uses.items()} == {"on-cpu": MACHINE, "on-gpu": 80 * 10**9}
    sources.close()
