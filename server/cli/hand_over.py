"""Verbs that other packages answer: `demo`, `load`, `compare`, `grafana`, `quant`.

The packages know nothing of one another; this command only starts them, `quant` in its own environment.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from server.errors import StartError

__all__ = ["add"]

_ROOT: Final = Path(__file__).resolve().parents[2]

_VERBS: Final = {
    "demo": "three real engines, a load, a comparison table",
    "load": "a Locust load on a gateway: the options are Locust's and loadgen's",
    "compare": "configurations under load, with intervals: variants, adapters, engine options",
    "grafana": "dashboards and alerts: push, diff, generate, check",
    "quant": "make variants and adapters, say what they lose and what can serve them",
}


def add(commands: Any) -> None:
    """Add the verbs; everything after one is handed over as it is."""
    for verb, summary in _VERBS.items():
        parser = commands.add_parser(verb, help=summary, add_help=False)
        parser.set_defaults(run=_run, takes_rest=True)


def _run(arguments: argparse.Namespace) -> int:
    argv = _argv(arguments.command, arguments.rest)
    # The engine environment does not know this project: it finds the package by its path.
    environ = {**os.environ, "PYTHONPATH": str(_ROOT)}  # noqa: TID251  # passed on, not read
    os.execve(argv[0], argv, environ)  # noqa: S606  # no shell wanted


def _argv(verb: str, rest: list[str]) -> list[str]:
    if verb == "load":
        if find_spec("locust") is None:
            raise StartError("Locust is not installed. Install it: pip install 'wattgate[load]'")
        return [sys.executable, "-m", "locust", "-f", str(_ROOT / "loadgen"), *rest]
    if verb == "demo":
        return [sys.executable, "-m", "loadgen._demo", *rest]
    if verb == "compare":
        return [sys.executable, "-m", "loadgen._compare", *rest]
    if verb == "quant":
        python = _ROOT / ".venv-engine" / "bin" / "python"
        if not python.exists():
            raise StartError("there is no engine environment with torch. Make it: make .venv-engine")
        return [str(python), "-m", "quant", *rest]
    return [sys.executable, "-m", verb, *rest]
