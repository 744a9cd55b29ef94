"""Reads the YAML file and says what is wrong with it in the reader's terms."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from server.config.energy import EnergySettings
from server.config.settings import Config
from server.errors import ConfigError

__all__ = ["load_config", "parse_config"]

_ENV_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def load_config(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """Read and check a configuration file; every path in the result is absolute.

    Raises `ConfigError` with one line a problem: the key's path, what was found, what is allowed.
    """
    environ = os.environ if environ is None else environ  # noqa: TID251  # the one reader of the environment
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise ConfigError(f"{path}: there is no such file. See deploy/examples/ for one to start from.") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read ({exc}).") from exc
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ConfigError(f"{path}: is not valid YAML: {exc}") from exc
    return parse_config(data, source=path, environ=environ)


def parse_config(data: Any, *, source: Path, environ: Mapping[str, str]) -> Config:
    """Check already parsed YAML; paths are relative to `source`'s folder."""
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: must hold a mapping with at least `engines`, found {_shown(data)}.")
    try:
        config = Config.model_validate(_expand(data, environ, source))
    except ValidationError as exc:
        problems = "\n".join(f"  {line}" for line in _explain(exc))
        raise ConfigError(f"{source}: {exc.error_count()} wrong setting(s):\n{problems}") from exc
    return _absolute(config, source.resolve().parent)


def _expand(value: Any, environ: Mapping[str, str], source: Path, where: str = "") -> Any:
    """Replace `${NAME}` by the environment's value, everywhere."""
    if isinstance(value, dict):
        return {
            key: _expand(item, environ, source, f"{where}.{key}" if where else str(key)) for key, item in value.items()
        }
    if isinstance(value, list):
        return [_expand(item, environ, source, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, str):
        for name in _ENV_REFERENCE.findall(value):
            if name not in environ:
                raise ConfigError(f"{source}: {where}: the environment variable {name} is not set; export it first.")
        return _ENV_REFERENCE.sub(lambda match: environ[match[1]], value)
    return value


def _explain(exc: ValidationError) -> Iterator[str]:
    for error in exc.errors():
        where = _path_of(error["loc"])
        found = _shown(error["input"])
        if error["type"] == "extra_forbidden":
            yield f"{where}: unknown key. {_nearest(error['loc'])}"
        elif error["type"] == "missing":
            yield f"{where}: is missing. {_describe(error['loc'])}".rstrip()
        elif error["type"] == "value_error":
            message = str(error["ctx"]["error"])
            yield (
                message
                if not where
                else f"{where}: {message}" + (f", found {found}" if _is_scalar(error["input"]) else "")
            )
        else:
            yield f"{where}: found {found}; {_lower_first(error['msg'])}. {_describe(error['loc'])}".rstrip()


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, (dict, list, BaseModel))


def _path_of(loc: tuple[int | str, ...]) -> str:
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else (f".{part}" if path else str(part))
    return path


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else repr(value)


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _section_of(loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The settings class in which the last part of `loc` is (or would be) a field."""
    section: type[BaseModel] = Config
    for part in loc[:-1]:
        if isinstance(part, int) or part not in section.model_fields:
            continue
        found = _model_in(section.model_fields[part].annotation)
        if found is None:
            return None
        section = found
    return section


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None


def _nearest(loc: tuple[int | str, ...]) -> str:
    section = _section_of(loc)
    known = sorted(section.model_fields) if section else []
    near = difflib.get_close_matches(str(loc[-1]), known, n=1)
    guess = f"Did you mean `{near[0]}`? " if near else ""
    return f"{guess}Known keys here: {', '.join(known)}."


def _describe(loc: tuple[int | str, ...]) -> str:
    section = _section_of(loc)
    field = section.model_fields.get(str(loc[-1])) if section else None
    return field.description or "" if field else ""


def _absolute(config: Config, base: Path) -> Config:
    """Paths relative to the file become absolute; an environment may also lie in the working directory."""

    def under(path: Path) -> Path:
        return (base / path.expanduser()).resolve()

    def environment(path: Path) -> Path:
        beside, here = base / path.expanduser(), Path.cwd() / path.expanduser()
        # Not resolved: a virtual environment's python is a link, and only its own path makes it that environment.
        return beside if beside.exists() or not here.exists() else here

    return config.model_copy(
        update={
            "state_dir": under(config.state_dir),
            "environments": config.environments.model_copy(
                update={name: environment(getattr(config.environments, name)) for name in ("engine", "quant")}
            ),
            "energy": _energy_absolute(config.energy, under),
            "gateway": config.gateway.model_copy(
                update={
                    name: under(path)
                    for name in ("tls_certificate", "tls_key")
                    if (path := getattr(config.gateway, name)) is not None
                }
            ),
            "engines": [
                engine.model_copy(update={"checkpoint": str(under(Path(engine.checkpoint)))})
                if engine.checkpoint and not engine.checkpoint.startswith("hf:")
                else engine
                for engine in config.engines
            ],
            "adapters": [
                adapter.model_copy(update={"path": str(under(Path(adapter.path)))}) for adapter in config.adapters
            ],
        }
    )


def _energy_absolute(energy: EnergySettings, under: Callable[[Path], Path]) -> EnergySettings:
    if energy.meters == "auto":
        return energy
    meters = [
        meter if meter.path is None else meter.model_copy(update={"path": under(meter.path)}) for meter in energy.meters
    ]
    return energy.model_copy(update={"meters": meters})
