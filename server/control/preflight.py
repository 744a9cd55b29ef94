"""Everything that can be known to be wrong before anything is started."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from server.carbon import problems as carbon_problems
from server.clock import SystemClock
from server.config import AdapterSettings, Config, GatewaySettings
from server.control.cores import allowed_cores
from server.control.devices import CPUINFO, cpu_abilities, find_gpus
from server.control.doors import door_problems
from server.control.resolve import Resolved, resolve_engines
from server.control.routing_table import check_namespace
from server.engines import ENGINES
from server.errors import CheckpointError, ConfigError, IncompatibleError, StartError
from server.models import check_adapter, check_memory, read_adapter
from server.units import Bytes

__all__ = ["Problem", "Resolved", "available_memory", "preflight"]

_BYTES_PER_KB: Final = 1024
"""The kernel's kB; source: proc_meminfo(5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that must be changed before the gateway can start as configured."""

    where: str
    """`engines.demo-int8`, `adapters.json`, `environments.engine`, …"""
    message: str
    """What is wrong, then what to do."""
    scope: Literal["file", "machine"]
    """`file`: wrong on every machine. `machine`: this one lacks something (a checkpoint, a GPU, memory, vLLM)."""


def preflight(
    config: Config,
    *,
    environ: Mapping[str, str] | None = None,
    launcher_pid: int = 0,
    running: frozenset[str] = frozenset(),
    cpuinfo: Path = CPUINFO,
) -> tuple[dict[str, Resolved], list[Problem]]:
    """Resolve every engine and list all problems; starts nothing. Blocks up to seconds if vLLM must be searched for.

    For a gateway that runs: its launcher, the launcher's environment, and the engines that have their memory already.
    """
    environ = os.environ if environ is None else environ  # noqa: TID251  # for the keys that `api_key_env` names
    allowed, gpus = allowed_cores(launcher_pid), find_gpus(environ)
    resolved = resolve_engines(config, allowed=allowed, gpus=gpus, cpu=cpu_abilities(cpuinfo))
    problems = [
        *_engine_problems(resolved.values()),
        *_namespace_problems(config, resolved.values()),
        *_adapter_problems(config, resolved.values()),
        *_environment_problems(config, resolved.values()),
        *_key_problems(config, environ),
        *_carbon_problems(config, environ),
        *_memory_problems(engine for name, engine in resolved.items() if name not in running),
        *_door_problems(config),
        *_tls_problems(config.gateway),
    ]
    return resolved, problems


def available_memory() -> Bytes | None:
    """What a start may take: the machine's available memory, and no more than the control group still grants."""
    kinds = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    try:
        free = int(kinds["MemAvailable"].split()[0]) * _BYTES_PER_KB
    except KeyError:
        return None
    granted = _granted(Path("/sys/fs/cgroup"))
    return Bytes(free if granted is None else min(free, granted))


def _granted(group: Path) -> int | None:
    """The limit of a version-2 control group less what is in use and cannot be reclaimed; None: no limit."""
    try:
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        used = int((group / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):  # `max` is no number
        return None
    return max(0, limit - used + int(stat.get("inactive_file", 0)))


def _engine_problems(engines: Iterable[Resolved]) -> Iterator[Problem]:
    for engine in engines:
        if engine.problem is not None:
            yield Problem(where=f"engines.{engine.settings.name}", message=engine.problem, scope=_scope(engine))


def _scope(engine: Resolved) -> Literal["file", "machine"]:
    """A checkpoint that was read, a GPU that is here and a CPU that has the kernels leave the file to blame."""
    unread = engine.checkpoint is None and engine.place.kind != "remote" and engine.settings.precision is not None
    lacking = engine.place.kind == "gpu" and engine.facts.memory_bytes is None
    kernelless = engine.facts.avx512 is False and engine.card is not None and engine.card.precision == "int4"
    return "machine" if unread or lacking or kernelless else "file"


def _namespace_problems(config: Config, engines: Iterable[Resolved]) -> Iterator[Problem]:
    variants = [(engine.settings.model, engine.variant) for engine in engines]
    try:
        check_namespace(variants, [(adapter.name, adapter.model) for adapter in config.adapters])
    except ConfigError as exc:
        yield Problem(where="engines", message=str(exc), scope="file")


def _adapter_problems(config: Config, engines: Iterable[Resolved]) -> Iterator[Problem]:
    for adapter in config.adapters:
        hosts = [engine for engine in engines if engine.settings.model == adapter.model]
        if message := _adapter_problem(adapter, hosts):
            yield Problem(where=f"adapters.{adapter.name}", message=message, scope="machine")


def _adapter_problem(adapter: AdapterSettings, hosts: list[Resolved]) -> str | None:
    """Why no engine could load it; None if one can, or if all are broken for reasons of their own."""
    try:
        card = read_adapter(Path(adapter.path))
    except CheckpointError as exc:
        return str(exc)
    reasons: dict[str, str] = {}
    for host in hosts:
        if host.problem is not None:
            continue
        limits = host.settings.adapters
        try:
            check_adapter(card, host.checkpoint, max_rank=limits.max_rank if limits else None, device=host.facts)
        except IncompatibleError as exc:
            reasons.setdefault(str(exc), host.settings.name)
        else:
            return None
    listed = " ".join(f"{name}: {reason}" for reason, name in reasons.items())
    return f"No engine can load it. {listed}" if reasons else None


def _environment_problems(config: Config, engines: Iterable[Resolved]) -> Iterator[Problem]:
    seen: set[str] = set()
    for engine in engines:
        if engine.problem is not None or engine.settings.launcher != "local":
            continue
        try:
            ENGINES[engine.settings.kind].command(engine.spec(config.environments.engine), port=0, api_key="")
        except StartError as exc:
            if str(exc) not in seen:
                yield Problem(where="environments.engine", message=str(exc), scope="machine")
            seen.add(str(exc))


def _key_problems(config: Config, environ: Mapping[str, str]) -> Iterator[Problem]:
    for settings in config.engines:
        name = settings.api_key_env
        if name is not None and name not in environ:
            message = f"`api_key_env` names the environment variable {name}, which is not set. Export it first."
            yield Problem(where=f"engines.{settings.name}", message=message, scope="machine")


def _carbon_problems(config: Config, environ: Mapping[str, str]) -> Iterator[Problem]:
    for where, message in carbon_problems(config.carbon, environ):
        yield Problem(where=where, message=message, scope="machine")


def _door_problems(config: Config) -> Iterator[Problem]:
    for where, message in door_problems(config, SystemClock()):
        yield Problem(where=where, message=message, scope="machine")


def _tls_problems(settings: GatewaySettings) -> Iterator[Problem]:
    """A worker that cannot read them would only say so in its log."""
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None or key is None:
        return
    for where, path in (("gateway.tls_certificate", certificate), ("gateway.tls_key", key)):
        try:
            path.read_bytes()
        except OSError as exc:
            message = f"{path} cannot be read ({exc.strerror or exc}). Correct the path, or let this user read it."
            yield Problem(where=where, message=message, scope="machine")
            return
    try:
        # The empty password stands for one that nobody could type in: workers have no terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError) as exc:
        message = (
            f"{certificate} and {key} are not a certificate and its private key ({exc}). "
            "Give both as PEM, the key without a password."
        )
        yield Problem(where="gateway.tls_certificate", message=message, scope="machine")


def _memory_problems(engines: Iterable[Resolved]) -> Iterator[Problem]:
    available = available_memory()
    needed = [engine.memory_needed or Bytes(0) for engine in engines if engine.problem is None]
    if available is None:
        return
    try:
        check_memory(Bytes(sum(needed)), available)
    except StartError as exc:
        yield Problem(where="engines", message=f"All engines on the CPU together: {exc}", scope="machine")
