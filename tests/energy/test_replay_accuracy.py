"""The command against files whose truth is known."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from server.cli import main
from tests.energy.replaying import Answer
from tests.energy.simulator.physics import TESTS, Physics
from tests.energy.simulator.run import simulate


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("physics", "rate"), list(zip(TESTS, (1.0, 2.0, 5.0), strict=True)))
def test_replay_of_a_known_engine_errs_little_on_requests_and_less_on_tenants(
    tmp_path: Path, physics: Physics, rate: float
) -> None:
    simulate(physics, rate=rate, seconds=180.0, seed=7).write_files(tmp_path)
    files = [f"--{name}={tmp_path / name}.jsonl" for name in ("requests", "meter", "out")]
    assert main(["energy", "replay", *files]) == 0
    answer = Answer(tmp_path / "out.jsonl")
    answer.check_law()
    assert (answer.summary["method"], answer.warnings) == ("phase_time", {})
    requests, truth = (lines(tmp_path / f"{name}.jsonl") for name in ("requests", "truth"))
    errors, said, true = [], Counter[str](), Counter[str]()
    for line, known, request in zip(answer.requests, truth, requests, strict=False):
        errors.append(abs(line["joules"] / known["joules"] - 1.0))
        said[request["tenant"]] += line["joules"]
        true[request["tenant"]] += known["joules"]
    assert median(errors) <= 0.025
    assert {tenant: said[tenant] / true[tenant] for tenant in true} == pytest.approx(
        dict.fromkeys(true, 1.0), abs=0.015
    )
