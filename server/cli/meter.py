"""`wattgate meter`: what this host's meters say, here and to other nodes."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import uvicorn
from pydantic import ValidationError
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from server.clock import Clock, SystemClock
from server.config import EnergySettings, MeterSettings, load_config, origin
from server.console import EXIT_CANNOT_LISTEN, say
from server.control.doors import is_loopback
from server.energy import EnergyMeter, discover
from server.energy.agent import READING_PATH, MeterAgent
from server.energy.watch import MeterWatch
from server.errors import ConfigError, MeterError, StartError

__all__ = ["add"]

_EVERY_S: Final = 1.0
_FIRST_WITHIN_S: Final = 3.0
"""Of a remote node, which needs a moment for its answer."""
_RETRY_S: Final = 0.1
_PORT: Final = 8082
_MAX_CONNECTIONS: Final = 64


def add(commands: Any) -> None:
    """Add the verbs `meter watch` and `meter serve`."""
    verbs = commands.add_parser("meter", help="watch this host's energy meters, or serve them to another node")
    verbs = verbs.add_subparsers(dest="verb", metavar="VERB", required=True)
    watch = verbs.add_parser("watch", help="devices, scope, watts, joules; until Ctrl-C")
    watch.add_argument("--json", action="store_true", help="a line a device and second, as the meter `replay` reads it")
    watch.add_argument("--once", action="store_true", help="one second, then end")
    _add_choice(watch)
    watch.set_defaults(run=_watch)
    serve = verbs.add_parser("serve", help="answer another node's meter `remote`")
    serve.add_argument("--host", default="127.0.0.1", help="other than loopback needs a token; default: %(default)s")
    serve.add_argument("--port", type=int, default=_PORT, help="default: %(default)s")
    _add_choice(serve)
    serve.set_defaults(run=_serve)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--meter", metavar="KIND", help="nvml, rapl, cpu_estimate, remote or replay; default: as found")
    which.add_argument("--config", type=Path, metavar="FILE", help="the meters of a configuration file")
    parser.add_argument("--url", help="of --meter remote")
    parser.add_argument("--path", type=Path, help="of --meter replay or rapl")


def _watch(arguments: argparse.Namespace) -> int:
    clock = SystemClock()
    meters = _meters(arguments, clock)
    watch = MeterWatch(meters)
    try:
        _wait_first(meters, clock)
        _tell(watch, as_json=arguments.json, once=arguments.once)
    except BrokenPipeError:  # whoever read this has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        for meter in meters:
            meter.close()
    return 0


def _meters(arguments: argparse.Namespace, clock: Clock) -> list[EnergyMeter]:
    if arguments.config is not None:
        energy = load_config(arguments.config).energy
    elif arguments.meter is not None:
        energy = EnergySettings(meters=[_settings(arguments)])
    else:
        energy = EnergySettings()
    found = discover(energy, clock=clock)
    if not found:
        raise MeterError("There is no meter here: no NVIDIA GPU, no RAPL, and no /proc/stat to estimate from.")
    return found


def _settings(arguments: argparse.Namespace) -> MeterSettings:
    try:
        return MeterSettings(kind=arguments.meter, url=arguments.url, path=arguments.path)
    except ValidationError as exc:
        reasons = "; ".join(error["msg"].removeprefix("Value error, ") for error in exc.errors())
        raise ConfigError(f"--meter {arguments.meter}: {reasons}.") from exc


def _wait_first(meters: Sequence[EnergyMeter], clock: Clock) -> None:
    """Until one of them can be read. Raises the `MeterError` of the first if none can."""
    patience = _FIRST_WITHIN_S if any(meter.kind.startswith("remote:") for meter in meters) else 0.0
    until = clock.monotonic() + patience
    while (problem := _problem(meters)) is not None:
        if clock.monotonic() >= until:
            raise problem
        time.sleep(_RETRY_S)


def _problem(meters: Sequence[EnergyMeter]) -> MeterError | None:
    """None: at least one can be read."""
    problems = []
    for meter in meters:
        try:
            meter.read()
        except MeterError as exc:
            problems.append(exc)
        else:
            return None
    return problems[0]


def _tell(watch: MeterWatch, *, as_json: bool, once: bool) -> None:
    watch.look()
    if as_json and not once:
        _print_lines(watch)
    with _shown(as_json=as_json) as show:
        while True:
            time.sleep(_EVERY_S)
            watch.look()
            show(watch)
            if once:
                return


@contextlib.contextmanager
def _shown(*, as_json: bool) -> Iterator[Callable[[MeterWatch], None]]:
    console = Console()
    if as_json:
        yield _print_lines
    elif not console.is_terminal:
        yield lambda watch: console.print(_table(watch))
    else:
        with Live(console=console, auto_refresh=False) as live:
            yield lambda watch: live.update(_table(watch), refresh=True)


def _table(watch: MeterWatch) -> Group:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("device", "scope", "watts", "joules"):
        table.add_column(title, justify="left" if title in {"device", "scope"} else "right", overflow="fold")
    for name, row in watch.rows.items():
        watts = "—" if row.watts is None else f"{row.watts:,.1f}"
        table.add_row(name, row.reading.scope, watts, f"{row.since_start:,.1f}")
    return Group(table, *map(Text, watch.problems))


def _print_lines(watch: MeterWatch) -> None:
    for line in watch.lines():
        print(json.dumps(line), flush=True)
    for problem in watch.problems:
        say(problem)


def _serve(arguments: argparse.Namespace) -> int:
    token = MeterSettings(kind="cpu_estimate").token()
    if token is None and not is_loopback(arguments.host):
        raise StartError(
            f"{arguments.host} is not a loopback address, and there is no token: whoever reaches it could read the "
            "meters. Set WATTGATE_METER_TOKEN here and on the node that asks."
        )
    clock = SystemClock()
    meters = _meters(arguments, clock)
    _wait_first(meters, clock)
    try:
        listener = _listener(arguments.host, arguments.port)
    except OSError as exc:
        say(f"cannot listen on {arguments.host}, port {arguments.port} ({exc}). Choose another: --port")
        return EXIT_CANNOT_LISTEN
    agent = MeterAgent(meters, clock=clock, token=token)
    print(f"serving {', '.join(meter.kind for meter in meters)} at", end=" ")
    print(f"{origin(arguments.host, listener.getsockname()[1])}{READING_PATH}", flush=True)
    config = uvicorn.Config(
        agent,
        interface="asgi3",
        proxy_headers=False,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        limit_concurrency=_MAX_CONNECTIONS,
    )
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)
