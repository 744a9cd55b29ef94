"""Runs `wattgate compare` with a scripted load: `run_compare.py TRUTH.json PLAN.yaml [option …]`."""

from __future__ import annotations

import sys
from pathlib import Path

from loadgen._compare._main import Places, main
from loadgen._compare._target import Commands

_HERE = Path(__file__).parent
_MARK = "import pathlib, sys; pathlib.Path(sys.argv[1]).open('a').write(sys.argv[2] + '\\n')"


def places(truth: Path) -> Places:
    """Loads and the gateway are scripted; `reload` leaves a line in reloads.txt beside the truth."""
    return Places(
        runs=truth.parent / "runs",
        # Without site-packages it starts in a tenth of the time.
        locust=(sys.executable, "-I", "-S", str(_HERE / "scripted_load.py"), str(truth)),
        commands=Commands(
            up=lambda file: [sys.executable, str(_HERE / "scripted_up.py"), str(file), "ready"],
            reload=lambda file: [sys.executable, "-c", _MARK, str(truth.with_name("reloads.txt")), str(file)],
        ),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:], places=places(Path(sys.argv[1]))))
