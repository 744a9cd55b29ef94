"""The demo's steps, in their order."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console

from loadgen._demo._board import Board
from loadgen._demo._config import DemoConfig, ports_in_use, read_config, write_on_ports
from loadgen._demo._cpu import serves_int4
from loadgen._demo._gateway import RunningGateway
from loadgen._demo._load import LoadShape, Measured, load_one
from loadgen._demo._processes import Children, InterruptedDemo
from loadgen._demo._results import load_grid, rich_table, size_grid, verdict, write_results
from loadgen._demo._variants import make_variants, stale_variants
from loadgen._energy import read_counters
from loadgen._errors import LoadError

__all__ = ["Places", "main"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_EXAMPLES: Final = _ROOT / "deploy" / "examples"
_WITHOUT_INT4: Final = _EXAMPLES / "demo-fp16.yaml"
_STATUS_REFUSED: Final = 2
_STATUS_INTERRUPTED: Final = 130


def _example() -> Path:
    return _EXAMPLES / "demo.yaml" if serves_int4() else _WITHOUT_INT4


def _up(config: Path) -> list[str]:
    return [sys.executable, "-m", "server", "up", "--config", str(config)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """What the demo runs with; a test may put others."""

    root: Path = _ROOT
    config: Path = field(default_factory=_example)
    runs: Path = _ROOT / "runs"
    up: Callable[[Path], list[str]] = _up
    """The command that starts the gateway with a configuration file."""
    shape: LoadShape = field(default_factory=LoadShape)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Demo:
    """One demo: what all its steps need."""

    places: Places
    config: DemoConfig
    folder: Path
    """Its logs and results."""
    console: Console
    children: Children


def main(argv: Sequence[str], *, places: Places | None = None, console: Console | None = None) -> int:
    """0: everything worked. 1: something did not. 2: nothing was started. 130: interrupted before the table."""
    options = _parse(argv)
    places = places or Places()
    console = console or Console()
    try:
        config, folder = _configure(options, places)
        if places.config == _WITHOUT_INT4:
            _say(console, "fp16 instead of int4: vLLM's int4 kernel needs AVX-512, which this CPU has not.")
        stale = stale_variants(config, places.root)
        with Children() as children:
            demo = _Demo(places=places, config=config, folder=folder, console=console, children=children)
            if stale:
                with Board(console, "Making variants of the demo model") as board:
                    make_variants(config, stale, root=places.root, logs=folder, children=children, board=board)
            return _serve(demo, once=options.once)
    except (InterruptedDemo, KeyboardInterrupt):
        console.print("Interrupted; everything is stopped.")
        return _STATUS_INTERRUPTED
    except _RefusedError as exc:
        _say(console, str(exc))
        return _STATUS_REFUSED
    except LoadError as exc:
        _say(console, f"The demo failed. {exc}")
        return 1


class _RefusedError(LoadError):
    """Nothing was started."""


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="wattgate demo", description="Serve one small model in three variants, load each, compare them."
    )
    parser.add_argument("--once", action="store_true", help="end after the table; status 0 only if everything worked")
    parser.add_argument("--port", type=int, help="port of the gateway (default: that of the configuration, 8080)")
    parser.add_argument("--control-port", type=int, help="port of the control API (default 8081)")
    return parser.parse_args(argv)


def _configure(options: argparse.Namespace, places: Places) -> tuple[DemoConfig, Path]:
    config = read_config(places.config)
    folder = places.runs / f"demo-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    port, control_port = options.port or config.port, options.control_port or config.control_port
    taken = ports_in_use([port, control_port])
    if taken:
        raise _RefusedError(
            f"Port {taken[0]} is in use. Stop what listens there, or choose other ports: "
            f"make demo ARGS='--port {port + 100} --control-port {control_port + 100}'"
        )
    if (port, control_port) != (config.port, config.control_port):
        config = write_on_ports(places.config, folder / "demo.yaml", port=port, control_port=control_port)
    return config, folder


def _serve(demo: _Demo, *, once: bool) -> int:
    gateway = RunningGateway.start(
        demo.config,
        demo.places.up(demo.config.path),
        log=demo.folder / "gateway.log",
        cwd=demo.places.root,
        children=demo.children,
    )
    with Board(demo.console, "Starting engines") as board:
        gateway.wait_for_engines(board)
        gateway.wait_for_adapters(board)
    measured = _load_each(demo, gateway)
    engines = gateway.engines()
    problems = _problems(demo.config, measured)
    write_results(demo.folder, measured=measured, engines=engines, problems=problems)
    for grid in (load_grid(measured), size_grid(engines)):
        demo.console.print()
        demo.console.print(rich_table(grid))
    demo.console.print()
    for line in (*verdict(measured), *(f"Problem: {problem}" for problem in problems)):
        _say(demo.console, line)
    _say(demo.console, f"Results: {demo.folder}")
    status = 1 if problems else 0
    if not once:
        _stay(demo, gateway)
    return status


def _load_each(demo: _Demo, gateway: RunningGateway) -> list[Measured]:
    measured = []
    with Board(demo.console, "One load after the other") as board:
        for id_ in demo.config.loaded_ids():
            gateway.refuse_if_ended()
            board.show(id_, "under load")
            one = load_one(
                id_,
                demo.config,
                demo.places.shape,
                folder=demo.folder / id_.replace(":", "-"),
                root=demo.places.root,
                children=demo.children,
            )
            measured.append(one)
            tokens = one.figures["output_tokens_per_s"] or 0.0
            board.show(id_, f"{one.figures['requests']} requests, {tokens:,.0f} tokens/s", done=True)
    return measured


def _problems(config: DemoConfig, measured: Sequence[Measured]) -> list[str]:
    """Everything for which the demo must not be called a success."""
    problems = []
    for one in measured:
        if one.errors:
            problems.append(f"{one.id}: {one.errors} requests failed, first: {one.figures['first_message']}")
        if not one.figures["ok"]:
            problems.append(f"{one.id}: not one request was answered.")
        if set(one.figures["served_by"]) - {one.id}:
            problems.append(f"{one.id}: answers name {', '.join(one.figures['served_by'])}.")
        if one.joules_per_output_token is None:
            problems.append(f"{one.id}: no energy was attributed to it.")
        problems += [f"{one.id}: {note}" for note in one.notes]
    residual = read_counters(config.control_url).residual_microjoules
    if residual:
        problems.append(f"Energy is not conserved: accounts less meters are {residual} µJ.")
    return problems


def _stay(demo: _Demo, gateway: RunningGateway) -> None:
    """Serve until a person has had enough."""
    for line in _ways_in(demo.config):
        # As it is, so that it can be copied.
        demo.console.print(line, soft_wrap=True, markup=False, highlight=False)
    try:
        while True:
            gateway.refuse_if_ended()
            demo.children.pause(0.5)
    except InterruptedDemo:
        demo.console.print("Stopping.")


def _ways_in(config: DemoConfig) -> list[str]:
    chats = [config.engines[-1].id, *config.adapter_ids()[:1]]
    return [
        "",
        f"Gateway      {config.gateway_url}/v1",
        f"Control API  {config.control_url}/api/status",
        f"Metrics      {config.control_url}/metrics",
        "Dashboard    grafana/dashboards/compare.json (import it into Grafana)",
        "",
        *(line for id_ in chats for line in _chat(config, id_)),
        f"curl -s {config.control_url}/metrics | grep ^wattgate_",
        "",
        "Ctrl-C stops everything.",
    ]


def _chat(config: DemoConfig, id_: str) -> list[str]:
    return [
        f"curl -s {config.gateway_url}/v1/chat/completions \\",
        "  -H 'Content-Type: application/json' \\",
        f'  -d \'{{"model": "{id_}", "max_tokens": 48,',
        '       "messages": [{"role": "user", "content": "def add(a, b):"}]}\'',
        "",
    ]


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False)
