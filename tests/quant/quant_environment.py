"""Runs the command line of `python -m quant` in the quant environment (PEFT), in one process for a whole module."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["QuantEnvironment", "quant_environment"]


@dataclass(frozen=True, slots=True)
class QuantEnvironment:
    """A running worker."""

    python: Path
    process: subprocess.Popen[str]

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """`python -m quant ARGUMENTS`."""
        command = [str(argument) for argument in arguments]
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"arguments": command}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the quant environment's Python ended"
        answer = json.loads(line)
        return subprocess.CompletedProcess(command, answer["code"], answer["stdout"], answer["stderr"])


@pytest.fixture(scope="module")
def quant_environment(root: Path) -> Iterator[QuantEnvironment]:
    """One Python of the quant environment, so that torch and PEFT are imported once."""
    python = root / ".venv-quant" / "bin" / "python"
    if not python.exists():
        pytest.fail("There is no quant environment: run `make .venv-quant`.")
    command = [python, "-u", "-m", "tests.quant.engine_worker"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}  # noqa: TID251  # passed on; small matrices gain nothing from more
    with subprocess.Popen(
        command, cwd=root, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield QuantEnvironment(python, process)
        process.terminate()
