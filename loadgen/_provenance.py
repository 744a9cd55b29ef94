"""Where a result comes from: code, machine, engines, cache."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import httpx

from loadgen._record import Record

__all__ = ["cache_state", "commit", "devices", "engines_at", "machine", "versions"]

_DISTRIBUTIONS: Final = ("wattgate", "locust", "gevent", "numpy")
_GIT_TIMEOUT_S: Final = 5.0
_STATUS_TIMEOUT_S: Final = 10.0
_PASSING: Final = frozenset({"pid", "since_s", "log_path", "state", "problem", "restarts", "ejections"})
"""What the control API says of an engine's life, not of what it is."""


def versions() -> dict[str, str | None]:
    """Of what made the load."""
    found: dict[str, str | None] = {"python": sys.version.split()[0]}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def commit() -> str | None:
    """Of the checkout that this file lies in; None outside of one."""
    try:
        asked = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return asked.stdout.strip() or None


def machine() -> dict[str, Any]:
    """The generator's own."""
    return {"platform": platform.platform(), "processor": _processor(), "cores": len(os.sched_getaffinity(0))}


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def engines_at(control: str, headers: Mapping[str, str]) -> list[dict[str, Any]] | None:
    """Every engine as `GET /api/status` tells it: version, device, precision, size; None where nobody tells."""
    try:
        answer = httpx.get(f"{control}/api/status", headers=dict(headers), timeout=_STATUS_TIMEOUT_S)
        answer.raise_for_status()
        told = answer.json()["engines"]
        return [{name: value for name, value in engine.items() if name not in _PASSING} for engine in told]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, AttributeError):
        return None


def devices(engines: Iterable[Mapping[str, Any]] | None) -> list[str] | None:
    """What the engines run on; None: unknown."""
    found = sorted({str(engine["device"]) for engine in engines or () if engine.get("device")})
    return found or None


def cache_state(records: Sequence[Record], *, salt: str) -> dict[str, Any]:
    """How much of the prompts came from the servers' prefix caches; None where they do not say."""
    told = [(record.cached_tokens, record.prompt_tokens or 0) for record in records if record.ok and not record.warm_up]
    known = [(cached, prompt) for cached, prompt in told if cached is not None]
    prompt = sum(of for _, of in known)
    cached = sum(hit for hit, _ in known)
    return {
        "salt": salt,
        "cached_tokens": cached if known else None,
        "prompt_tokens": prompt if known else None,
        "cached_share": cached / prompt if prompt else None,
    }
