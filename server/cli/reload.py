"""`wattgate reload`: a changed configuration, without a failed request."""

from __future__ import annotations

import argparse
import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from server.cli.plan import forget_plans, write_next_config, write_plan
from server.config import Config, load_config
from server.config.paths import desk_path, next_config_path, runtime_dir
from server.control.preflight import Problem, preflight
from server.engines import keeper
from server.engines.launchers.state_file import read_record
from server.errors import ConfigError, StartError, WattgateError

__all__ = ["add"]

_FIXED: Final = (("gateway", "host"), ("gateway", "port"), ("control", "host"), ("control", "port"))
"""What the launcher holds sockets for."""


def add(commands: Any) -> None:
    """Add the verb `reload`."""
    reload = commands.add_parser(
        "reload", help="take over a changed configuration; requests that run are finished, none is refused"
    )
    reload.add_argument("--config", type=Path, required=True, metavar="FILE")
    reload.set_defaults(run=_reload)


def _reload(arguments: argparse.Namespace) -> int:
    source = arguments.config.resolve()
    runtime = runtime_dir(load_config(source).state_dir)
    with _Launcher(runtime, source) as launcher:
        os.chdir(f"/proc/{launcher.pid}/cwd")  # `up` looked for environments there
        config = load_config(source)
        before = _running(runtime)
        _check(config, source, launcher, frozenset(before))
        plan = write_plan(config, runtime, source=source, launcher_pid=launcher.pid)
        write_next_config(config, runtime)
        status = launcher.replace(plan, tell=_say)
    if status == 0:
        forget_plans(runtime, but=plan)
    else:
        next_config_path(runtime).unlink(missing_ok=True)
    _tell_engines(config, before, _running(runtime))
    _say("reloaded" if status == 0 else "not reloaded, or not wholly: see above")
    return status


def _check(config: Config, source: Path, launcher: _Launcher, running: frozenset[str]) -> None:
    """Raises `ConfigError` for whatever would not work; until then nothing has changed."""
    fixed = [
        f"  {section}.{name}: {launcher.plan[section][name]} cannot become {getattr(getattr(config, section), name)}"
        for section, name in _FIXED
        if getattr(getattr(config, section), name) != launcher.plan[section][name]
    ]
    if fixed:
        lines = "\n".join(fixed)
        raise ConfigError(
            f"{source}: nothing was changed. The sockets stay as they are until the gateway ends:\n{lines}\n"
            "Set it back, or stop the gateway and start it again."
        )
    _, problems = preflight(config, environ=launcher.environ(), launcher_pid=launcher.pid, running=running)
    if problems:
        raise ConfigError(_listed(source, problems))


def _listed(source: Path, problems: list[Problem]) -> str:
    lines = "\n".join(f"  {problem.where}: {problem.message}" for problem in problems)
    return f"{source}: {len(problems)} problem(s), nothing was changed:\n{lines}"


class _Launcher:
    """A conversation with the running launcher; see server/launcher/desk.py."""

    def __init__(self, runtime: Path, source: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(str(desk_path(runtime)))
        except OSError as exc:
            self._socket.close()
            raise StartError(
                f"no gateway runs with the `state_dir` of {source}. Start it (wattgate up --config {source}); "
                "where one runs with another `state_dir`, that cannot change without a restart."
            ) from exc
        self._lines = self._socket.makefile("r", encoding="utf-8")
        greeting = self._read()
        if "busy" in greeting:
            self.__exit__(None, None, None)
            raise StartError("another reload is under way. Wait until it has ended, then try again.")
        self.pid = int(greeting["pid"])
        self.plan: Mapping[str, Any] = json.loads(Path(greeting["plan"]).read_text(encoding="utf-8"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lines.close()
        self._socket.close()

    def environ(self) -> dict[str, str]:
        """The environment that it started with, and that all it starts have."""
        pairs = Path(f"/proc/{self.pid}/environ").read_bytes().split(b"\0")
        return {os.fsdecode(name): os.fsdecode(value) for name, _, value in (pair.partition(b"=") for pair in pairs)}

    def replace(self, plan: Path, *, tell: Callable[[str], None]) -> int:
        """Go over to this plan; returns 0 if all went well, else 1."""
        self._socket.sendall(f"{plan}\n".encode())
        while "status" not in (message := self._read()):
            tell(message["say"])
        return int(message["status"])

    def _read(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise WattgateError("the gateway ended during the reload")
        return dict(json.loads(line))


def _running(runtime: Path) -> dict[str, int]:
    """Local engines that run: process by name."""
    records = [read_record(path) for path in sorted((runtime / "engines").glob("*.json"))]
    return {
        record.name: record.engine
        for record in records
        if record is not None and keeper.start_time(record.keeper) == record.keeper_start
    }


def _tell_engines(config: Config, before: Mapping[str, int], after: Mapping[str, int]) -> None:
    wanted = [engine.name for engine in config.engines if engine.launcher != "external"]
    kept = [name for name in wanted if name in before and after.get(name) == before[name]]
    changed = [name for name in wanted if name in before and name not in kept]
    new = [name for name in wanted if name not in before]
    gone = [name for name in before if name not in wanted and name not in after]
    for names, what in ((kept, "run on"), (changed, "start anew"), (new, "start"), (gone, "have ended")):
        if names:
            _say(f"engines that {what}: {', '.join(names)}")
    if changed or new:
        _say("when they are ready: wattgate status")


def _say(message: str) -> None:
    print(message, flush=True)
