"""The load generator itself: is it on time, and does it see what arrives when it arrives?

    .venv/bin/python -m tests.benchmarks.load_generator [--write] [--before-others] [--seconds 20]

The engine is nginx, on one core; the generator, one real headless Locust, has another. `--before-others` gives both
a real-time priority, where the system allows it: what others do on the machine meanwhile does not count then.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.benchmarks import machine, processes
from tests.benchmarks.document import markdown_table, now, write_json
from tests.benchmarks.mock_engine import OPEN_FILES
from tests.benchmarks.rounds import percentile
from tests.benchmarks.stamped_engine import model_with_pace, start_stamped_engine
from tests.benchmarks.targets import Target, free_port, wait_ready

__all__ = ["main"]

_ROOT: Final = Path(__file__).parents[2]
_RATES: Final = (100, 300, 600)
_STREAMS: Final = (50, 150, 300, 600)
_PACE_MS: Final = 20
_PERCENTS: Final = (50, 99)
_START_AND_END_S: Final = 60.0
_PROBE_S: Final = 8


def main() -> int:
    """Measure; the status is 1 where a target is missed."""
    options = _parse()
    machine.raise_open_files(OPEN_FILES)
    scheduling = _go_before_others() if options.before_others else "as all others"
    with tempfile.TemporaryDirectory(prefix="wattgate-loadgen-") as folder:
        port = free_port()
        engine = start_stamped_engine(Path(folder, "engine"), port=port, core=machine.GATEWAY_CORE)
        try:
            wait_ready(Target(name="stamped engine", port=port, process=engine))
            lateness = [_lateness(port, rate, options.seconds, Path(folder)) for rate in _RATES]
            streams = [_streams(port, number, options.seconds, Path(folder)) for number in _STREAMS]
            stamps = [_stamps(port, number) for number in _STREAMS]
        finally:
            processes.end(engine)
    run = {"at": now(), "machine": machine.describe(), "scheduling": scheduling, "load_average": os.getloadavg()[0]}
    found = {**run, "schedule_lateness": lateness, "streams": streams, "stamps": stamps}
    for part in (lateness, streams, stamps):
        print(_table(part), end="\n\n")
    if options.write:
        write_json("load_generator", found)
    on_time = all(one["p99_ms"] <= 2.0 for one in lateness if one["rate"] == 300)
    in_time = all(one["receive_lag_p99_ms"] <= 10.0 for one in streams if one["streams"] == 150)
    return 0 if on_time and in_time else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write results/load_generator.json")
    parser.add_argument("--before-others", action="store_true", help="real-time priority for engine and generator")
    parser.add_argument("--seconds", type=int, default=20, help="of each run")
    return parser.parse_args()


def _go_before_others() -> str:
    """Of this process and of all that it starts from now on."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except PermissionError:
        return "as all others (a real-time priority was refused)"
    return "real-time (SCHED_FIFO 10), others may use the machine"


def _lateness(port: int, rate: int, seconds: int, folder: Path) -> dict[str, Any]:
    """An open-loop run; lateness is sent less scheduled of every request."""
    output = folder / f"rate-{rate}"
    _locust(
        port,
        output,
        seconds,
        *("--rate", rate, "--arrivals", "poisson", "--models", model_with_pace(0), "--output-tokens", 8),
    )
    lines = (output / "requests.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    late = [(record["sent_s"] - record["scheduled_s"]) * 1000 for record in records]
    return {
        "rate": rate,
        "requests": len(records),
        "failed": sum(record["error"] is not None for record in records),
        **{f"p{percent}_ms": round(percentile(late, percent), 3) for percent in _PERCENTS},
        "max_ms": round(max(late), 3),
    }


def _streams(port: int, number: int, seconds: int, folder: Path) -> dict[str, Any]:
    """A closed-loop run of long streams; the lag is between the kernel's receipt and our read."""
    output = folder / f"streams-{number}"
    tokens = seconds * 1000 // _PACE_MS // 3
    _locust(
        port,
        output,
        seconds,
        *("--concurrency", number, "--models", model_with_pace(_PACE_MS), "--output-tokens", tokens),
    )
    summary = json.loads((output / "summary.json").read_text("utf-8"))
    (figures,) = summary["models"]
    lag, itl = summary["receive_lag_s"], figures["inter_token_latency_s"]
    return {
        "streams": number,
        "chunks_per_s": round(figures["output_tokens_per_s"] or 0.0),
        "failed": sum(figures["errors"].values()),
        "receive_lag_p50_ms": _milliseconds(lag["p50"]),
        "receive_lag_p99_ms": _milliseconds(lag["p99"]),
        "itl_p50_ms": _milliseconds(itl["p50"]),
        "itl_p99_ms": _milliseconds(itl["p99"]),
        "itl_verdict": figures["validity"]["inter_token_latency_s"]["verdict"],
    }


def _stamps(port: int, number: int) -> dict[str, Any]:
    """Every chunk's own stamp against our time of it, in a process with the same client and without Locust."""
    command = [sys.executable, "-m", "tests.benchmarks.load_generator_probe", port, number, _PROBE_S]
    said = _run(command, _START_AND_END_S)
    found: dict[str, Any] = json.loads(said)
    return found


def _locust(port: int, output: Path, seconds: int, *options: object) -> None:
    command = [sys.executable, "-m", "locust", "-f", _ROOT / "loadgen", "--headless", "--loglevel", "WARNING"]
    of_run = ["--host", f"http://127.0.0.1:{port}", "--output", output, "-t", f"{seconds}s", "--seed", 1]
    _run([*command, *of_run, *options], seconds + _START_AND_END_S)


def _run(command: Sequence[object], bound_s: float) -> str:
    bound = ["taskset", "--cpu-list", str(machine.LOAD_CORE), *map(str, command)]
    done = subprocess.run(bound, cwd=_ROOT, capture_output=True, text=True, timeout=bound_s, check=False)
    if done.returncode:
        raise RuntimeError(f"{bound} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    return markdown_table(list(rows[0]), [[str(value) for value in row.values()] for row in rows])


if __name__ == "__main__":
    sys.exit(main())
