"""Fixtures and rules for every test."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytest_plugins = ["tests.integration.fleet"]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def engine_python() -> Path:
    """The Python of the engine environment (torch, safetensors, vLLM)."""
    python = ROOT / ".venv-engine" / "bin" / "python"
    if not python.exists():
        pytest.fail("There is no engine environment: run `make .venv-engine`.")
    return python


@pytest.fixture(scope="session")
def quant_env() -> Path:
    """The Python of the quant environment (llm-compressor, PEFT, torch)."""
    python = ROOT / ".venv-quant" / "bin" / "python"
    if not python.exists():
        pytest.fail("There is no quant environment: run `make .venv-quant`.")
    return python


@pytest.fixture
def anyio_backend() -> str:
    """Coroutine tests (`@pytest.mark.anyio`) run on asyncio."""
    return "asyncio"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """With WATTGATE_NO_SKIPS a skipped test fails, unless it needs a GPU: a machine for tests must have the rest."""
    report = yield
    forbidden = os.environ.get("WATTGATE_NO_SKIPS") and item.get_closest_marker("gpu") is None  # noqa: TID251
    if forbidden and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure here: {report.longrepr}"
    return report
