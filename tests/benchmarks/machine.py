"""The machine and the checkout that a run was made on."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
from pathlib import Path
from typing import Any, Final

__all__ = ["GATEWAY_CORE", "LOAD_CORE", "describe", "raise_open_files", "stay_on_load_core"]

_CORES: Final = sorted(os.sched_getaffinity(0))
GATEWAY_CORE: Final = _CORES[0]
"""Where the gateway under test runs, all its processes."""
LOAD_CORE: Final = _CORES[-1]
"""Where the mock engine and the load run."""


def stay_on_load_core() -> None:
    """Keep this process off the gateway's core."""
    os.sched_setaffinity(0, {LOAD_CORE})


def raise_open_files(wanted: int) -> None:
    """Allow this process and its children so many open files. Raises OSError where the system does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))


def describe() -> dict[str, Any]:
    """Processor, kernel, Python and commit, with `+` where files differ from the commit."""
    return {
        "processor": _processor(),
        "cores": len(_CORES),
        "gateway_core": GATEWAY_CORE,
        "load_core": LOAD_CORE,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "nginx": _said("nginx", "-v").rpartition("/")[2],
        "commit": _said("git", "rev-parse", "--short", "HEAD")
        + ("+" if _said("git", "status", "--porcelain", "--untracked-files=no", "server") else ""),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _said(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10)
    except FileNotFoundError:
        return ""
    return (done.stdout or done.stderr).strip()
