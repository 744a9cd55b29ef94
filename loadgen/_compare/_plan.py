"""A comparison's plan, as one checked value."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadgen._compare._design import Level

__all__ = ["Blocks", "ComparePlan", "Configuration", "Load", "Target"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Either a running gateway (or any OpenAI-compatible server), or a configuration to start one with."""

    host: str | None
    control: str | None
    """None: no joules, no ranks."""
    config: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One side of a comparison."""

    name: str
    model: str
    """The id that clients ask for: a variant, or an adapter on one."""
    engine_options: Mapping[str, Any]
    """Laid over the options of the engine that serves it, which is started anew for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The same for every configuration."""

    closed: tuple[float, ...]
    rates: tuple[float, ...]
    percent_of_capacity: tuple[float, ...]
    capacity_concurrency: int
    warm_up_s: float
    run_time_s: int
    """Locust takes whole seconds."""
    requests: int
    """0: only the run time ends a run."""
    slo: str
    options: Mapping[str, Any]
    """Further options of `locust -f loadgen/`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """How often everything is repeated."""

    at_least: int
    at_most: int
    half_width: float
    """Of the intervals' logarithms, that more blocks shall reach; 0: `at_least` blocks and no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparePlan:
    """One comparison."""

    target: Target
    configurations: tuple[Configuration, ...]
    """The reference first."""
    load: Load
    blocks: Blocks
    metrics: tuple[str, ...]
    margin: float
    confidence: float
    seed: int
    output: Path | None

    @property
    def reference(self) -> str:
        return self.configurations[0].name

    @property
    def names(self) -> list[str]:
        return [configuration.name for configuration in self.configurations]

    @property
    def restarts(self) -> bool:
        return any(configuration.engine_options for configuration in self.configurations)

    def configuration(self, name: str) -> Configuration:
        return next(one for one in self.configurations if one.name == name)

    def fixed_levels(self) -> list[Level]:
        """Those that need no measured capacity."""
        closed = [Level(loop="closed", value=value) for value in self.load.closed]
        return closed + [Level(loop="open", value=value) for value in self.load.rates]

    def to_json(self) -> dict[str, Any]:
        return json.loads(json.dumps({**asdict(self), "output": None}, default=str))  # type: ignore[no-any-return]

    def hash(self) -> str:
        """Of all that decides what is measured; where the results lie does not."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]
