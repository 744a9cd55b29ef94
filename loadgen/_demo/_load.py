"""One configuration under load, by a headless Locust of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from loadgen._demo._config import DemoConfig
from loadgen._demo._processes import Children, last_lines
from loadgen._errors import LoadError

__all__ = ["LoadShape", "Measured", "load_one"]

_START_AND_DRAIN_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadShape:
    """The same load for every configuration."""

    concurrency: int = 8
    prompt_tokens: int = 32
    output_tokens: int = 16
    warm_up_s: float = 0.5
    run_time_s: int = 12
    """At most; `requests` may end it before."""
    requests: int = 140
    """Somewhat over the 130 that a 95th percentile needs."""
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One configuration's figures: a model's entry of summary.json, and its joules."""

    id: str
    figures: Mapping[str, Any]
    joules_per_output_token: float | None
    scopes: tuple[str, ...]
    method: str | None
    """How the server shared joules out; None: no energy."""
    notes: tuple[str, ...]

    @property
    def errors(self) -> int:
        return int(sum(self.figures["errors"].values()) + self.figures["warm_up_errors"])


def load_one(
    id_: str, config: DemoConfig, shape: LoadShape, *, folder: Path, root: Path, children: Children
) -> Measured:
    """Raises `LoadError` if Locust could not measure; requests that failed are figures, not exceptions."""
    log = folder / "locust.log"
    process = children.start(_command(id_, config, shape, folder, root), log=log, cwd=root, grace_s=0.0)
    status = children.wait(process, shape.run_time_s + _START_AND_DRAIN_S, f"The load on {id_}")
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        (figures,) = summary["models"]
    except (OSError, ValueError) as exc:
        raise LoadError(f"The load on {id_} gave no results (status {status}):\n{last_lines(log)}") from exc
    energy = summary["energy"]
    return Measured(
        id=id_,
        figures=figures,
        joules_per_output_token=_joules_per_output_token(id_, energy),
        scopes=tuple(energy["scopes"]) if energy else (),
        method=energy["method"] if energy else None,
        notes=tuple(summary["notes"]),
    )


def _command(id_: str, config: DemoConfig, shape: LoadShape, folder: Path, root: Path) -> list[str]:
    options = {
        "--host": config.gateway_url,
        "--control": config.control_url,
        "--models": id_,
        "--concurrency": shape.concurrency,
        "--prompt-tokens": shape.prompt_tokens,
        "--output-tokens": shape.output_tokens,
        "--warm-up": shape.warm_up_s,
        "--run-time": f"{shape.run_time_s}s",
        "--requests": shape.requests,
        "--seed": shape.seed,
        "--output": folder,
        "--loglevel": "WARNING",
    }
    command = [sys.executable, "-m", "locust", "-f", str(root / "loadgen"), "--headless", "--only-summary"]
    return command + [str(part) for option in options.items() for part in option]


def _joules_per_output_token(id_: str, energy: Mapping[str, Any] | None) -> float | None:
    """Of the configuration `id_` alone, its replicas together; None if nothing was attributed to it."""
    name, _, variant = id_.rpartition(":")
    uses = [
        use
        for use in (energy["uses"] if energy else ())
        if use["variant"] == variant and name == (use["model"] if use["adapter"] == "none" else use["adapter"])
    ]
    tokens = sum(use["output_tokens"] for use in uses)
    return sum(use["active_joules"] for use in uses) / tokens if tokens else None
