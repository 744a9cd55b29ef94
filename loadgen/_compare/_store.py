"""What a comparison has measured so far, on disk: an interrupt loses at most the run that goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from loadgen._compare._design import Run
from loadgen._compare._document import PlanError
from loadgen._compare._plan import ComparePlan
from loadgen._compare._reading import Figures
from loadgen._whole_file import write_whole

__all__ = ["Store", "write_text"]

_STATE: Final = "state.json"
_FIGURES: Final = "figures.json"


class Store:
    """The folder of one comparison; `runs/KEY/figures.json` is there if and only if that run is finished."""

    def __init__(self, folder: Path, plan: ComparePlan) -> None:
        """Raises `PlanError` where the folder holds another plan's runs."""
        self.folder = folder
        self._plan = plan
        state = self._read(folder / _STATE)
        if state is not None and state.get("hash") != plan.hash():
            changed = ", ".join(_differences(state.get("plan") or {}, plan.to_json())) or "its form"
            raise PlanError(
                f"{folder} holds runs of another plan; changed since: {changed}. Runs of two plans cannot be compared "
                "with each other: set the plan back, or name another folder with --output."
            )
        self._state = dict(state or {"hash": plan.hash(), "plan": plan.to_json()})

    def run_folder(self, run: Run) -> Path:
        return self.folder / "runs" / run.key

    def finished(self, run: Run) -> Figures | None:
        found = self._read(self.run_folder(run) / _FIGURES)
        return Figures.from_json(found) if found is not None else None

    def finish(self, run: Run, figures: Figures) -> None:
        write_text(self.run_folder(run) / _FIGURES, json.dumps(figures.to_json(), indent=1))

    def recall(self, key: str) -> Any:
        """A fact found on the way (a capacity, the number of blocks), or None."""
        return self._state.get(key)

    def keep(self, key: str, value: Any) -> None:
        self._state[key] = value
        self.save()

    def save(self) -> None:
        write_text(self.folder / _STATE, json.dumps(self._state, indent=1))

    def _read(self, file: Path) -> Mapping[str, Any] | None:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as exc:
            raise PlanError(f"{file} cannot be read ({exc}). Remove it, or name another folder with --output.") from exc
        return found if isinstance(found, dict) else None


def write_text(file: Path, text: str) -> None:
    """Either the old content or the new, whatever happens; its folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, [text, "\n"])


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> list[str]:
    found = []
    for key in sorted({*before, *now}):
        name = f"{path}{key}"
        one, other = before.get(key), now.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found += _differences(one, other, f"{name}.")
        elif one != other:
            found.append(name)
    return found
