"""`wattgate check` and `wattgate up`."""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from server.cli.plan import forget_plans, write_plan
from server.config import Config, load_config
from server.config.paths import next_config_path, runtime_dir
from server.control.preflight import Problem, Resolved, preflight
from server.errors import ConfigError, StartError

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the verbs `check` and `up`."""
    check = commands.add_parser("check", help="check a configuration file and its checkpoints; starts nothing")
    check.add_argument("config", type=Path, metavar="FILE")
    check.set_defaults(run=_check)
    up = commands.add_parser("up", help="start the gateway and its engines, in the foreground")
    up.add_argument("--config", type=Path, required=True, metavar="FILE")
    up.set_defaults(run=_up)


def _check(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config)
    resolved, problems = preflight(config)
    _print_engines(config, resolved)
    if problems:
        raise ConfigError(_listed(arguments.config, problems))
    print(f"{arguments.config}: all good. Start it: wattgate up --config {arguments.config}")
    return 0


def _print_engines(config: Config, resolved: dict[str, Resolved]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("engine", "serves", "precision", "kind", "where", "size", "bits/weight"):
        table.add_column(title, justify="right" if title in {"size", "bits/weight"} else "left")
    for engine in config.engines:
        found = resolved.get(engine.name)
        card = found.card if found else None
        table.add_row(
            engine.name,
            f"{engine.model}:{found.variant}" if found else engine.model,
            found.precision if found else "?",
            engine.kind,
            engine.url or engine.device,
            f"{card.size_bytes / 1e6:,.1f} MB" if card else "—",
            f"{card.bits_per_weight:.2f}" if card else "—",
        )
    Console().print(table)


def _listed(path: Path, problems: list[Problem]) -> str:
    lines = "\n".join(f"  {problem.where}: {problem.message}" for problem in problems)
    return f"{path}: {len(problems)} problem(s), nothing was started:\n{lines}"


def _up(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config)
    config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    _lock(config.state_dir)  # first: a gateway that runs already explains a lack of memory
    _, problems = preflight(config)
    if problems:
        raise ConfigError(_listed(arguments.config, problems))
    runtime = _own_runtime_dir(config.state_dir)
    forget_plans(runtime)  # of a gateway that was killed
    next_config_path(runtime).unlink(missing_ok=True)
    plan = write_plan(config, runtime, source=arguments.config)
    # The launcher takes over this process: it holds the sockets, and imports nothing that is loaded here.
    os.execv(sys.executable, [sys.executable, "-m", "server.launcher", str(plan)])  # noqa: S606  # no shell wanted


def _own_runtime_dir(state_dir: Path) -> Path:
    runtime = runtime_dir(state_dir)
    runtime.mkdir(mode=0o700, exist_ok=True)
    status = runtime.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or not runtime.is_dir() or runtime.is_symlink():
        raise StartError(f"{runtime} is not a private folder of this user (mode 0700). Remove it, then start again.")
    return runtime


def _lock(state_dir: Path) -> None:
    """One gateway a state folder; the lock is inherited by the launcher and ends with it."""
    descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        raise StartError(
            f"a gateway runs already on {state_dir}. Stop it first (Ctrl-C where it runs), or set another `state_dir`."
        ) from exc
    os.set_inheritable(descriptor, True)
