"""The load generator and `vllm bench serve` on one endpoint, and what the server's own log says.

`python -m tests.benchmarks.load_crosscheck [--requests 160] [--concurrency 8]`: against the timed engine, closed loop,
first the one client, then the other. Needs the engine environment (`make .venv-engine`) for vLLM's client. Writes a
section of docs/load.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

from tests.benchmarks.document import markdown_table, now, with_section, write_json
from tests.benchmarks.machine import describe
from tests.fakes.timed_engine import TimedEngine, timed_engine

ROOT: Final = Path(__file__).resolve().parent.parent.parent
DOCUMENT: Final = ROOT / "docs" / "load.md"
MODELS: Final = ("plain", "several", "counted", "reasoning", "silent", "stalling", "cut")

_TOKENS: Final = 12
_BOUND_S: Final = 180.0
_ENGINE_PYTHON: Final = ROOT / ".venv-engine" / "bin" / "python"
# The command `vllm` asks for a package of that name, which builds for the CPU do not have.
_BENCH_SERVE: Final = (
    "import argparse; from vllm.benchmarks.serve import add_cli_args, main; "
    "parser = argparse.ArgumentParser(); add_cli_args(parser); main(parser.parse_args())"
)
_OFFLINE: Final = ("HF_HUB_OFFLINE=1", "VLLM_NO_USAGE_STATS=1", "VLLM_DO_NOT_TRACK=1")

Figures = dict[str, float | None]
"""By name; milliseconds, but for counts."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=160, help="of each client to each model")
    parser.add_argument("--concurrency", type=int, default=8)
    arguments = parser.parse_args()
    found = {model: _compare(model, arguments.requests, arguments.concurrency) for model in MODELS}
    write_json("load_crosscheck", {"machine": describe(), "requests": arguments.requests, "models": found})
    text = (
        f"{now()}, commit {describe()['commit']}, {arguments.requests} requests, {arguments.concurrency} at once; ms."
    )
    text += "\n\n" + _table(found)
    DOCUMENT.write_text(with_section(DOCUMENT.read_text("utf-8"), "crosscheck", text), "utf-8")
    sys.stdout.write(text + "\n")
    return 0


def _compare(model: str, requests: int, concurrency: int) -> dict[str, Figures]:
    with tempfile.TemporaryDirectory() as folder:
        with timed_engine() as engine:
            ours = _ours(engine, model, requests, concurrency, Path(folder))
            truth = _truth(engine.log())
        with timed_engine() as engine:
            theirs = _theirs(engine, model, requests, concurrency, Path(folder))
    return {"truth": truth, "ours": ours, "vllm": theirs}


def _truth(log: Sequence[Mapping[str, Any]]) -> Figures:
    writes = [[piece["before_s"] for piece in entry["pieces"] if piece["kind"] == "token"] for entry in log]
    whole = [
        (entry["received_s"], times, entry["pieces"][-1]["before_s"])
        for entry, times in zip(log, writes, strict=True)
        if entry["pieces"][-1]["kind"] == "done"
    ]
    return {
        "answers": float(len(whole)),
        "output_tokens": float(len(whole) * _TOKENS),
        "ttft_p50": _ms([times[0] - received for received, times, _ in whole]),
        "gap_mean": _mean_ms([later - earlier for _, times, _ in whole for earlier, later in pairwise(times)]),
        "tpot_mean": _mean_ms([(times[-1] - times[0]) / (_TOKENS - 1) for _, times, _ in whole]),
        "end_p50": _ms([ended - received for received, _, ended in whole]),
    }


def _ms(values: Sequence[float]) -> float | None:
    return median(values) * 1e3 if values else None


def _mean_ms(values: Sequence[float]) -> float | None:
    return fmean(values) * 1e3 if values else None


def _ours(engine: TimedEngine, model: str, requests: int, concurrency: int, folder: Path) -> Figures:
    _run(
        [
            *(sys.executable, "-m", "locust", "-f", str(ROOT / "loadgen"), "--headless", "--host", engine.url),
            *("--models", model, "--output-tokens", str(_TOKENS), "--prompt-tokens", "32", "--output", str(folder)),
            *("--requests", str(requests), "--concurrency", str(concurrency), "-t", "120s"),
        ],
        # 1: some requests failed, as they should.
        statuses=(0, 1),
    )
    of = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["models"][0]
    return {
        "answers": float(of["ok"]),
        "output_tokens": float(of["output_tokens"]) if of["ok"] > of["without_usage"] else None,
        "ttft_p50": _in_ms(of["time_to_first_token_s"]["p50"]),
        "gap_mean": _in_ms(of["inter_chunk_latency_s"]["mean"]),
        "tpot_mean": _in_ms(of["time_per_output_token_s"]["mean"]),
        "end_p50": _in_ms(of["end_to_end_s"]["p50"]),
    }


def _in_ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


def _theirs(engine: TimedEngine, model: str, requests: int, concurrency: int, folder: Path) -> Figures:
    result = folder / "vllm.json"
    _run(
        [
            *("env", *_OFFLINE, str(_ENGINE_PYTHON), "-c", _BENCH_SERVE, "--backend", "openai-chat"),
            *("--base-url", engine.url, "--endpoint", "/v1/chat/completions", "--model", model),
            *("--tokenizer", str(ROOT / "models" / "demo"), "--dataset-name", "random", "--random-input-len", "16"),
            *("--random-output-len", str(_TOKENS), "--num-prompts", str(requests), "--ignore-eos", "--disable-tqdm"),
            *("--max-concurrency", str(concurrency), "--percentile-metrics", "ttft,tpot,itl,e2el"),
            *("--metric-percentiles", "50", "--save-result", "--result-filename", str(result)),
        ],
        statuses=(0,),
    )
    of = json.loads(result.read_text(encoding="utf-8"))
    some = of["completed"] > 0
    return {
        "answers": float(of["completed"]),
        "output_tokens": float(of["total_output_tokens"]) if some else None,
        "ttft_p50": of["median_ttft_ms"] if some else None,
        "gap_mean": of["mean_itl_ms"] if some else None,
        "tpot_mean": of["mean_tpot_ms"] if some else None,
        "end_p50": of["median_e2el_ms"] if some else None,
    }


def _run(command: Sequence[str], *, statuses: Sequence[int]) -> None:
    said = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=_BOUND_S, check=False, stdin=subprocess.DEVNULL
    )
    if said.returncode not in statuses:
        raise RuntimeError(f"{command[0]} ended with status {said.returncode}:\n{said.stderr[-2000:]}")


def _table(found: Mapping[str, Mapping[str, Figures]]) -> str:
    columns = {
        "answers": "{:.0f}",
        "output_tokens": "{:,.0f}",
        "ttft_p50": "{:.1f}",
        "gap_mean": "{:.2f}",
        "tpot_mean": "{:.2f}",
        "end_p50": "{:.1f}",
    }
    heading = ["engine", "by", "answers", "tokens", "TTFT p50", "gap mean", "TPOT mean", "end p50"]
    names = {"truth": "its log", "ours": "loadgen", "vllm": "vllm bench"}
    rows = [
        [model, names[by], *("n/a" if of[key] is None else form.format(of[key]) for key, form in columns.items())]
        for model, compared in found.items()
        for by, of in compared.items()
    ]
    return markdown_table(heading, rows)


if __name__ == "__main__":
    sys.exit(main())
