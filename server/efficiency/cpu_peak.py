"""Measures what CPU cores can do at most: float32 matrix products, and bytes to and from memory.

A program of its own, `python -m server.efficiency.cpu_peak --cores 0,1`: the matrix library decides at its start, by
the cores it may use, how many threads it has. What it finds is what this library reaches on these cores now; run it
while nothing else computes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from server.clock import Clock, SystemClock
from server.errors import StartError
from server.models.hardware import Arithmetic, HardwarePeaks

__all__ = ["main", "measure_cpu_peak"]

MEASURED: Final = "measured"
_SIDE: Final = 2048
"""C = A · B; A, B, C (side, side) in float32, 16 MiB each: large enough for every core, small enough to repeat."""
_COPY_BYTES: Final = 128 * 2**20
"""A core's own array: far more than its caches hold."""
_LEAST_REPEATS: Final = 3
_GRACE_S: Final = 60.0
"""Beyond the two measurements: the start of the program, the first pass over its memory."""


def measure_cpu_peak(cores: Iterable[int], *, seconds: float = 3.0) -> HardwarePeaks:
    """Of these cores together, the best of all repeats within `seconds` for each of the two. Blocks about twice that.

    float32 only: of another arithmetic this says nothing. Raises `StartError` if it cannot be measured.
    """
    listed = ",".join(str(core) for core in sorted(set(cores)))
    command = [sys.executable, "-m", "server.efficiency.cpu_peak", "--cores", listed, "--seconds", str(seconds)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * seconds + _GRACE_S, check=True)
        found = json.loads(done.stdout)
        rates = float(found["flops_per_s"]), float(found["bytes_per_s"])
    except subprocess.CalledProcessError as exc:
        said = (exc.stderr or "").strip().splitlines()
        raise StartError(f"The cores {listed} cannot be measured: {said[-1] if said else exc}.") from exc
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError) as exc:
        raise StartError(f"The cores {listed} cannot be measured: {exc}.") from exc
    return HardwarePeaks(flops_per_s={Arithmetic.FP32: rates[0]}, bytes_per_s=rates[1], source=MEASURED)


def main(arguments: list[str] | None = None) -> int:
    """Measure the cores named and print one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m server.efficiency.cpu_peak", description=__doc__)
    parser.add_argument("--cores", required=True, help="as 0,1,4")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each of the two measurements")
    options = parser.parse_args(arguments)
    cores = sorted({int(core) for core in options.cores.split(",")})
    os.sched_setaffinity(0, cores)  # before the matrix library starts its threads
    clock = SystemClock()
    found = {
        "flops_per_s": _flops_per_s(clock, options.seconds),
        "bytes_per_s": _bytes_per_s(clock, options.seconds, len(cores)),
        "cores": cores,
    }
    print(json.dumps(found))
    return 0


def _flops_per_s(clock: Clock, seconds: float) -> float:
    """2 · side³ FLOPs a product."""
    import numpy as np  # noqa: PLC0415  # after the affinity is set

    random = np.random.default_rng(0)
    a, b = (random.random((_SIDE, _SIDE), dtype=np.float32) for _ in range(2))
    out = np.empty_like(a)
    return 2 * _SIDE**3 / _fastest(lambda: np.matmul(a, b, out=out), clock, seconds)


def _bytes_per_s(clock: Clock, seconds: float, threads: int) -> float:
    """Copies counted as STREAM does: a byte read and a byte written are two."""
    import numpy as np  # noqa: PLC0415

    pairs = [(np.ones(_COPY_BYTES, np.uint8), np.zeros(_COPY_BYTES, np.uint8)) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        fastest = _fastest(lambda: list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs)), clock, seconds)
    return 2 * _COPY_BYTES * threads / fastest


def _fastest(work: Callable[[], object], clock: Clock, seconds: float) -> float:
    """Seconds of the fastest run; the first, which touches everything for the first time, is not timed."""
    work()
    times: list[float] = []
    end = clock.monotonic() + seconds
    while len(times) < _LEAST_REPEATS or clock.monotonic() < end:
        began = clock.monotonic()
        work()
        times.append(clock.monotonic() - began)
    return min(times)


if __name__ == "__main__":
    raise SystemExit(main())
