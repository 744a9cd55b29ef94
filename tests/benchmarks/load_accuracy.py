"""How far the load generator's times are from the server's own log of its writes.

`python -m tests.benchmarks.load_accuracy [--streams 100 150 300] [--seconds 15]`: one headless Locust at a time against
the timed engine, open loop, each stream 50 chunks/s. An arrival's error is the client's time of it less the moment at
which the engine handed it to the kernel, both on CLOCK_MONOTONIC; a gap's error is the difference of two of them. The
engine and Locust each have a core to themselves where there are two; on a machine that does much else, run it under
`chrt -r 5`. Writes a section of docs/load.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.document import markdown_table, now, with_section, write_json
from tests.benchmarks.machine import describe
from tests.fakes.timed_engine import TIMETABLES, TimedEngine, timed_engine

ROOT: Final = Path(__file__).resolve().parent.parent.parent
DOCUMENT: Final = ROOT / "docs" / "load.md"

_MODEL: Final = "steady"
_TOKENS: Final = 100
_WARM_UP_S: Final = 3.0
_DRAIN_S: Final = 60.0
_BOUNDS_MS: Final = {"ttft_error_p99_ms": 2.0, "gap_error_p99_ms": 1.0}
_BOUND_STREAMS: Final = 100
"""The bounds hold up to so many; beyond, the table shows when figures become n/a."""


def main() -> int:
    arguments = _parser().parse_args()
    levels = [_level(streams, arguments.seconds) for streams in arguments.streams]
    write_json("load_accuracy", {"machine": describe(), "load_average": os.getloadavg()[0], "levels": levels})
    text = f"{_circumstances(arguments.seconds)}\n\n{_table(levels)}"
    DOCUMENT.write_text(with_section(DOCUMENT.read_text("utf-8"), "accuracy", text), "utf-8")
    sys.stdout.write(text + "\n")
    missed = [
        f"{level['streams']} streams: {name} is {level[name]:.2f}, the bound {bound:g}"
        for level in levels
        if level["streams"] <= _BOUND_STREAMS
        for name, bound in _BOUNDS_MS.items()
        if level[name] > bound
    ]
    sys.stdout.write("".join(f"{line}\n" for line in missed))
    return 1 if missed else 0


def _circumstances(seconds: float) -> str:
    machine = describe()
    before_others = os.sched_getscheduler(0) != os.SCHED_OTHER
    return (
        f"{now()}, commit {machine['commit']}, {machine['processor']}, {machine['cores']} cores, "
        f"Python {machine['python']}, {seconds:g} s a row"
        + (f", real-time priority beside other work (load average {os.getloadavg()[0]:.0f})." if before_others else ".")
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[100, 150, 300], help="open at once")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each level, warm-up not counted")
    return parser


def _level(streams: int, seconds: float) -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0))
    with timed_engine() as engine, tempfile.TemporaryDirectory() as folder:
        os.sched_setaffinity(engine.pid, {cores[0]})
        _locust(engine, Path(folder), streams, seconds, core=cores[-1])
        summary = json.loads((Path(folder) / "summary.json").read_text(encoding="utf-8"))
        lines = (Path(folder) / "requests.jsonl").read_text(encoding="utf-8").splitlines()
        return _figures(streams, summary, [json.loads(line) for line in lines], engine.log())


def _locust(engine: TimedEngine, folder: Path, streams: int, seconds: float, *, core: int) -> None:
    timetable = TIMETABLES[_MODEL]
    one_s = timetable.first_s + (_TOKENS - 1) * timetable.gap_s
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "locust", "-f", str(ROOT / "loadgen"), "--headless", "--host", engine.url),
            *("--models", _MODEL, "--output-tokens", str(_TOKENS), "--output", str(folder)),
            *("--rate", f"{streams / one_s:.4f}", "--arrivals", "constant", "--warm-up", str(_WARM_UP_S)),
            *("--max-in-flight", str(2 * streams), "-t", f"{math.ceil(seconds + _WARM_UP_S)}s"),
        ],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    os.sched_setaffinity(process.pid, {core})
    _, said = process.communicate(timeout=seconds + _WARM_UP_S + _DRAIN_S)
    if process.returncode != 0:
        raise RuntimeError(said.decode()[-2000:])


def _figures(
    streams: int, summary: Mapping[str, Any], records: Sequence[Mapping[str, Any]], log: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    origin = summary["origin_monotonic_s"]
    writes = {
        entry["request_id"]: [piece["before_s"] - origin for piece in entry["pieces"] if piece["kind"] == "token"]
        for entry in log
    }
    pairs = [(record["token_s"], writes[record["request_id"]]) for record in records if not record["warm_up"]]
    first = [ours[0] - true[0] for ours, true in pairs if ours]
    gaps = [error for ours, true in pairs for error in _gap_errors(ours, true)]
    model = summary["models"][0]
    return {
        "streams": streams,
        "chunks_per_s": model["output_tokens_per_s"],
        "answers": model["ok"],
        "failed": model["requests"] - model["ok"],
        **{f"ttft_error_{name}_ms": value for name, value in _tail_ms(first)},
        **{f"gap_error_{name}_ms": value for name, value in _tail_ms([abs(error) for error in gaps])},
        "reported_itl_p50_ms": _ms(model["inter_token_latency_s"]["p50"]),
        "lateness_p99_ms": _ms(summary["schedule_lateness_s"]["p99"]),
        "receive_lag_p99_ms": _ms(summary["receive_lag_s"]["p99"]),
        "merged_gaps_share": summary["merged_gaps_share"],
        "kernel_receive_times": summary["kernel_receive_times"],
        "itl": model["validity"]["inter_token_latency_s"]["verdict"],
        "ttft": model["validity"]["time_to_first_token_s"]["verdict"],
        "rate": summary["validity"]["rate"]["verdict"],
    }


def _gap_errors(ours: Sequence[float], true: Sequence[float]) -> Iterator[float]:
    for (earlier, later), (wrote, wrote_next) in zip(pairwise(ours), pairwise(true), strict=len(ours) == len(true)):
        yield (later - earlier) - (wrote_next - wrote)


def _tail_ms(values: Sequence[float]) -> Iterator[tuple[str, float]]:
    ascending = sorted(values)
    for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
        yield name, 1e3 * ascending[max(1, math.ceil(share * len(ascending))) - 1]


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


def _table(levels: Sequence[Mapping[str, Any]]) -> str:
    columns = (
        ("streams", "streams", "{:d}"),
        ("chunks/s", "chunks_per_s", "{:,.0f}"),
        ("TTFT error p50", "ttft_error_p50_ms", "{:.2f}"),
        ("p99", "ttft_error_p99_ms", "{:.2f}"),
        ("gap error p50", "gap_error_p50_ms", "{:.2f}"),
        ("p99", "gap_error_p99_ms", "{:.2f}"),
        ("lateness p99", "lateness_p99_ms", "{:.2f}"),
        ("read late p99", "receive_lag_p99_ms", "{:.2f}"),
        ("merged", "merged_gaps_share", "{:.2%}"),
        ("TTFT", "ttft", "{}"),
        ("ITL", "itl", "{}"),
    )
    rows = [["–" if level[key] is None else form.format(level[key]) for _, key, form in columns] for level in levels]  # noqa: RUF001
    return markdown_table([title for title, _, _ in columns], rows)


if __name__ == "__main__":
    sys.exit(main())
