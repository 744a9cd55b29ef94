"""GPUs that cannot be read or may not be used are left out, and nothing is raised; what the CPU can do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from server.control.devices import CpuAbilities, cpu_abilities, find_gpus, gpu_memory_of


class NoPermissionError(Exception):
    """As NVML raises it."""


@dataclass(slots=True)
class Nvml:
    """NVML with some GPUs; declines the named call for GPU 1 (or at all, where no GPU is named)."""

    NVMLError = NoPermissionError

    declines: str = ""
    gpus: int = 3
    held: list[int | None] = field(default_factory=lambda: [100, 20])

    def _try(self, call: str, gpu: int = 1) -> None:
        if call == self.declines and gpu == 1:
            raise NoPermissionError(call)

    def nvmlInit(self) -> None:  # noqa: N802
        self._try("init")

    def nvmlShutdown(self) -> None:  # noqa: N802
        self._try("shutdown")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self._try("count")
        return self.gpus

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        self._try("handle", index)
        return index

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> list[int]:  # noqa: N802
        self._try("capability", handle)
        return [9, 0]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        self._try("memory", handle)
        return SimpleNamespace(total=1000)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[SimpleNamespace]:  # noqa: N802
        self._try("processes", handle)
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in enumerate(self.held)]


@pytest.mark.parametrize(
    ("declines", "found"),
    [
        ("", {0: 1000, 1: 1000, 2: 1000}),
        ("shutdown", {0: 1000, 1: 1000, 2: 1000}),
        ("memory", {0: 1000, 1: None, 2: 1000}),
        ("capability", {0: 1000, 2: 1000}),
        ("handle", {0: 1000, 2: 1000}),
        ("count", {}),
        ("init", {}),
    ],
)
def test_gpu_that_cannot_be_read_is_absent_and_unknown_memory_is_none(
    declines: str, found: dict[int, int | None]
) -> None:
    assert {gpu.index: gpu.memory_bytes for gpu in find_gpus({}, nvml=Nvml(declines))} == found


@pytest.mark.parametrize(
    ("visible", "found"), [("2,0", [0, 2]), ("1", [1]), ("7", []), ("", []), ("GPU-8932f937", [0, 1, 2])]
)
def test_gpus_are_those_that_the_caller_may_use(visible: str, found: list[int]) -> None:
    assert [gpu.index for gpu in find_gpus({"CUDA_VISIBLE_DEVICES": visible}, nvml=Nvml())] == found


@pytest.mark.parametrize("declines", ["init", "handle", "processes"])
def test_memory_that_nvml_does_not_tell_is_unknown(declines: str) -> None:
    assert gpu_memory_of({0, 1}, [0, 1], nvml=Nvml(declines)) is None


def test_memory_is_that_of_the_processes_on_their_gpus() -> None:
    assert gpu_memory_of({0}, [0, 1], nvml=Nvml()) == 200
    assert gpu_memory_of({0, 1}, [0], nvml=Nvml(held=[5, None])) is None
    assert gpu_memory_of({9}, [0], nvml=Nvml()) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512f avx512bw\n", True),
        ("processor : 0\nflags\t\t: fpu avx2\n", False),
        ("processor : 0\nFeatures\t: fp asimd sve\n", None),
        ("", None),
    ],
)
def test_avx512_is_read_from_the_flags_that_only_x86_has(tmp_path: Path, text: str, found: bool | None) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert cpu_abilities(tmp_path / "cpuinfo").avx512 is found


def test_avx512_is_unknown_where_nothing_says_it(tmp_path: Path) -> None:
    assert cpu_abilities(tmp_path / "cpuinfo") == CpuAbilities()
