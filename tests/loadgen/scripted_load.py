"""Stands in for a headless Locust: takes its options, writes a summary whose true values are known. Run as a script.

`scripted_load.py TRUTH.json [option …]`. TRUTH holds for each model what it truly does: `tokens_per_s`, `itl_s`,
`ttft_s`, `joules`; and for all: `noise` (of each run), `drift` (of each block, shared by its runs), and, if wanted,
`twin` (a factor on the twin's times and joules), `fail` (this many requests fail), `sleep_s`.
"""

from __future__ import annotations

import json
import math
import random
import sys
import time
from pathlib import Path


def main(truth_file: str, *arguments: str) -> None:
    truth = json.loads(Path(truth_file).read_text(encoding="utf-8"))
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    folder = Path(options["--output"])
    with Path(truth_file).with_name("started.txt").open("a", encoding="utf-8") as log:
        log.write(f"{folder.name} {options['--salt']} {options['--seed']} {options['--models']}\n")
    time.sleep(truth.get("sleep_s", 0))
    model = options["--models"]
    mine = truth["models"][model]
    chance = random.Random(options["--salt"])
    drift = math.exp(random.Random(options["--seed"]).gauss(0, truth["drift"]))

    def felt(value: float) -> float:
        return value * drift * math.exp(chance.gauss(0, truth["noise"]))

    factor = truth.get("twin", 1.0) if folder.name.endswith("-again") else 1.0
    rate = float(options.get("--rate", 0))
    capacity = mine["tokens_per_s"] / 16
    load = 1 + max(0.0, rate / capacity) ** 4 if rate else 1.0
    itl, ttft = felt(mine["itl_s"]) * factor * load, felt(mine["ttft_s"]) * factor * load**2
    good = min(rate, capacity) if ttft < 0.2 else 0.0
    joules = felt(mine["joules"]) * factor
    name, _, variant = model.rpartition(":")
    summary = {
        "schema": 2,
        "partial": False,
        "notes": [],
        "machine": "scripted",
        "validity": {"rate": {"verdict": "valid", "because": ""}},
        "models": [
            {
                "model": model,
                "requests": 200,
                "ok": 200 - truth.get("fail", 0),
                "errors": {"http_500": truth["fail"]} if truth.get("fail") else {},
                "served_by": {model: 200},
                "output_tokens": 3200,
                "prompt_tokens": 6400,
                "cached_tokens": 0,
                "output_tokens_per_s": mine["tokens_per_s"] / felt(1.0) / factor,
                "requests_per_s": rate or capacity,
                "time_to_first_token_s": _dist(ttft),
                "inter_token_latency_s": _dist(itl),
                "time_per_output_token_s": _dist(itl),
                "end_to_end_s": _dist(ttft + 15 * itl),
                "goodput": {"requests_per_s": good} if options.get("--slo") else None,
                "validity": {"inter_token_latency_s": {"verdict": mine.get("itl_verdict", "valid"), "because": ""}},
            }
        ],
        "energy": {
            "scopes": ["estimated"],
            "uses": [
                {
                    "model": name,
                    "variant": variant,
                    "adapter": "none",
                    "active_joules": joules * 3200,
                    "output_tokens": 3200,
                }
            ],
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")


def _dist(middle: float) -> dict[str, float]:
    return {
        "samples": 200,
        "mean": middle,
        "p50": middle,
        "p90": 1.2 * middle,
        "p95": 1.3 * middle,
        "p99": 1.5 * middle,
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
