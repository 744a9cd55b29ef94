"""The gateway's configuration with one configuration's engine options laid over it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from loadgen._compare._document import PlanError
from loadgen._compare._plan import Configuration

__all__ = ["derived", "read_source", "variant_of"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_NO_PATHS: Final = ("hf:",)


def read_source(config: Path) -> dict[str, Any]:
    """Raises `PlanError`. A full check is the gateway's own."""
    try:
        data = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as exc:
        raise PlanError(f"{config} cannot be read: {exc}") from exc
    if not isinstance(data, dict) or not isinstance(data.get("engines"), list):
        raise PlanError(f"{config} is no configuration of a gateway: it has no list `engines`.")
    return data


def derived(
    config: Path, configurations: Sequence[Configuration], chosen: Configuration, *, ports: tuple[int, int], state: Path
) -> str:
    """A whole configuration: the engines that the comparison needs, on these ports, in a state folder of its own.

    Engines that no configuration of the plan asks for are left out: they would hold memory and take cores.
    """
    data, base = read_source(config), config.resolve().parent
    wanted = [_engine_of(data, config, one) for one in configurations]
    data["engines"] = [engine for engine in data["engines"] if engine["name"] in wanted]
    changed = _engine_of(data, config, chosen)
    for engine in data["engines"]:
        if engine["name"] == changed and chosen.engine_options:
            engine["options"] = {**(engine.get("options") or {}), **chosen.engine_options}
    names = {one.model.rpartition(":")[0] for one in configurations}
    data["adapters"] = [adapter for adapter in data.get("adapters") or () if adapter["name"] in names]
    data["gateway"] = {**(data.get("gateway") or {}), "host": "127.0.0.1", "port": ports[0]}
    data["control"] = {**(data.get("control") or {}), "host": "127.0.0.1", "port": ports[1]}
    data["state_dir"] = str(state)
    environments = {"engine": str(_ROOT / ".venv-engine"), **(data.get("environments") or {})}
    # Not resolved: a virtual environment's python is a link, and only its own path makes it that environment.
    data["environments"] = {name: str(base / folder) for name, folder in environments.items()}
    _make_absolute(data["engines"], "checkpoint", base)
    _make_absolute(data["adapters"], "path", base)
    # By way of JSON: no anchors, so that the same configuration is the same text.
    return yaml.safe_dump(json.loads(json.dumps(data)), sort_keys=False)


def variant_of(engine: Mapping[str, Any]) -> str:
    """As the gateway names it where the file does not."""
    return str(engine.get("variant") or engine.get("precision") or "")


def _engine_of(data: Mapping[str, Any], config: Path, configuration: Configuration) -> str:
    """The name of the engine that serves its model id: a variant, or an adapter on one."""
    name, _, variant = configuration.model.rpartition(":")
    models = {name, *(entry["model"] for entry in data.get("adapters") or () if entry["name"] == name)}
    for engine in data["engines"]:
        if variant_of(engine) == variant and engine["model"] in models:
            return str(engine["name"])
    ids = ", ".join(f"{engine['model']}:{variant_of(engine)}" for engine in data["engines"])
    raise PlanError(f"{config} serves nothing under {configuration.model!r}; its engines serve {ids}.")


def _make_absolute(entries: Sequence[dict[str, Any]], key: str, base: Path) -> None:
    for entry in entries:
        if key in entry and not str(entry[key]).startswith(_NO_PATHS):
            entry[key] = str((base / Path(entry[key]).expanduser()).resolve())
