"""Whether engines on this machine can serve int4 weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

__all__ = ["serves_int4"]

_CPUINFO: Final = Path("/proc/cpuinfo")


def serves_int4(cpuinfo: Path = _CPUINFO, *, path: str | None = None) -> bool:
    """False only on an x86-64 CPU without AVX-512: vLLM's int4 kernel for the CPU is not built for it.

    Where `nvidia-smi` is found (on `path`; None: as the shell would), engines are placed on GPUs.
    """
    if shutil.which("nvidia-smi", path=path):
        return True
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return True
    # Other architectures call their abilities otherwise, and have kernels of their own.
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), None)
    return flags is None or "avx512f" in flags
