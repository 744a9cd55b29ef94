"""Runs Python source and `quant.compressor` in the quant environment, in one process for a whole module."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.quant.conftest import Script

__all__ = ["quant_script"]


@pytest.fixture(scope="module")
def quant_script(quant_env: Path, root: Path) -> Iterator[Script]:
    """Like `script`, with llm-compressor instead of vLLM."""
    command = [str(quant_env), "-u", "-m", "tests.quant.engine_worker"]
    # One thread: the demo's matrices gain nothing from two, and two that wait for each other lose much in company.
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}  # noqa: TID251  # passed on, not read
    with subprocess.Popen(
        command, cwd=root, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield lambda source, **variables: _run(process, source, variables)
        process.terminate()


def _run(process: subprocess.Popen[str], source: str, variables: dict[str, Any]) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    paths = [name for name, value in variables.items() if isinstance(value, Path)]
    job = {"source": source, "variables": variables, "paths": paths}
    process.stdin.write(json.dumps(job, default=str) + "\n")
    process.stdin.flush()
    for line in process.stdout:  # llm-compressor writes its log there, too
        if line.startswith('{"error"'):
            answer = json.loads(line)
            assert answer["error"] is None, answer["error"]
            return answer["result"]
    pytest.fail("the quant environment's Python ended")
