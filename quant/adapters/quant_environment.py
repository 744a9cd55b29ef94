"""Runs a command in the environment that has PEFT."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from quant.compressor.environment import quant_python

__all__ = ["command_line", "elsewhere", "has_peft"]

_ROOT: Final = Path(__file__).resolve().parents[2]


def has_peft() -> bool:
    """Whether this process could import PEFT; does not import it."""
    return importlib.util.find_spec("peft") is not None


def elsewhere(arguments: Sequence[str]) -> int:
    """Run `python -m quant` with these arguments in the quant environment; its exit status.

    It shares this process's terminal, so Ctrl-C ends both. Raises `QuantError` if there is no such environment.
    """
    environ = {**os.environ, "PYTHONPATH": str(_ROOT)}  # noqa: TID251  # passed on, not read
    command = [str(quant_python()), "-m", "quant", *arguments]
    return subprocess.run(command, env=environ, check=False).returncode


def command_line(verbs: Sequence[str], options: argparse.Namespace, positionals: Sequence[str]) -> list[str]:
    """The arguments that parse to `options` again; flags are options that are True."""
    line = [*verbs, *(str(getattr(options, name)) for name in positionals)]
    for name, value in vars(options).items():
        if name in {"command", *positionals} or value is None or value is False:
            continue
        flag = f"--{name.replace('_', '-')}"
        line += [flag] if value is True else [flag, str(value)]
    return line
