"""Makes the demo model's int8 and int4 variants where they are missing or out of date."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from loadgen._demo._board import Board
from loadgen._demo._config import DemoConfig, Engine
from loadgen._demo._processes import Children, last_lines
from loadgen._errors import LoadError

__all__ = ["SCHEMES", "make_variants", "stale_variants"]

SCHEMES: Final[Mapping[str, tuple[str, ...]]] = {
    "int8": ("--scheme", "w8a8-int8"),
    "int4": ("--scheme", "w4a16"),
}
"""Arguments of `python -m quant rtn`, by variant; every other variant is a checkpoint of its own."""

_TIMEOUT_S: Final = 120.0


def stale_variants(config: DemoConfig, root: Path) -> list[Engine]:
    """Engines whose checkpoint must be made first. Raises `LoadError` if what it is made of is missing."""
    made = [engine for engine in config.engines if engine.variant in SCHEMES]
    for engine in config.engines:
        if engine not in made and not (engine.checkpoint / "config.json").is_file():
            raise LoadError(f"There is no checkpoint in {engine.checkpoint}; is the checkout complete?")
    return [engine for engine in made if not _is_fresh(config, engine, root)]


def make_variants(
    config: DemoConfig, stale: Sequence[Engine], *, root: Path, logs: Path, children: Children, board: Board
) -> None:
    """All at once: each is a process of the engine environment that mostly imports torch. Raises `LoadError`."""
    if not config.engine_python.exists():
        raise LoadError(f"There is no engine environment ({config.engine_python}); run `make .venv-engine`.")
    started = []
    for engine in stale:
        board.show(engine.id, "rounding the weights")
        shutil.rmtree(engine.checkpoint, ignore_errors=True)
        engine.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        source, log = _source(config, engine).checkpoint, logs / f"make-{engine.variant}.log"
        command = [config.engine_python, "-m", "quant", "rtn", source, engine.checkpoint, *SCHEMES[engine.variant]]
        started.append((engine, log, children.start([*map(str, command)], log=log, cwd=root, grace_s=1)))
    for engine, log, process in started:
        if children.wait(process, _TIMEOUT_S, f"Making {engine.id}") != 0:
            raise LoadError(f"{engine.id} could not be made:\n{last_lines(log)}")
        _add_quality(_source(config, engine).checkpoint, engine)
        _stamp(engine).write_text(_digest(config, engine, root), encoding="utf-8")
        board.show(engine.id, "made", done=True)


def _add_quality(source: Path, engine: Engine) -> None:
    """What was measured of this rounding of these very weights, if it was, goes beside it: rounding has no chance."""
    recorded = source / f"quality.{engine.variant}.json"
    if recorded.is_file():
        shutil.copyfile(recorded, engine.checkpoint / "quality.json")


def _is_fresh(config: DemoConfig, engine: Engine, root: Path) -> bool:
    stamp = _stamp(engine)
    return (
        (engine.checkpoint / "config.json").is_file()
        and stamp.is_file()
        and stamp.read_text(encoding="utf-8") == _digest(config, engine, root)
    )


def _stamp(engine: Engine) -> Path:
    """Beside the checkpoint, written last: what the checkpoint was made of."""
    return engine.checkpoint.with_name(f"{engine.checkpoint.name}.made-of")


def _source(config: DemoConfig, engine: Engine) -> Engine:
    """The engine with the weights as they were trained."""
    for other in config.engines:
        if other.model == engine.model and other.variant not in SCHEMES:
            return other
    raise LoadError(f"{config.path}: {engine.id} is made of an unquantized variant of {engine.model}; there is none.")


def _digest(config: DemoConfig, engine: Engine, root: Path) -> str:
    """Over the source checkpoint, the scheme, and the program that does the rounding."""
    writer = (path for path in (root / "quant").rglob("*.py") if "demo" not in path.parts)
    digest = hashlib.sha256(" ".join(SCHEMES[engine.variant]).encode())
    for path in _sorted_files([*_source(config, engine).checkpoint.iterdir(), *writer]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _sorted_files(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.is_file())
